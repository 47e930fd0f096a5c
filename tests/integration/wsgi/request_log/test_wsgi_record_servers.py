from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[3] / "support"
BIG = 30_000_000  # more than the buffers of two sockets hold
SERVERS: dict[str, Callable[[int], list[str]]] = {
    "gunicorn sync": lambda port: [
        *("gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "--no-control-socket"),
        "wsgi_record_served:application",
    ],
    "gunicorn threads": lambda port: [
        *("gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "--threads", "2", "--no-control-socket"),
        "wsgi_record_served:application",
    ],
    "waitress": lambda port: [
        "waitress",
        f"--listen=127.0.0.1:{port}",
        "wsgi_record_served:application",
    ],
}


class Server:
    def __init__(self, port: int, records: Path, *, sized: bool) -> None:
        self.port = port
        self.sized = sized
        self.records = records

    def ask(self, path: str, *, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers={"X-Request-ID": "from-the-test"})
            answer = connection.getresponse()
            try:
                body = answer.read()
            except http.client.IncompleteRead as error:
                body = error.partial
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body
        finally:
            connection.close()

    def leave(self, path: str) -> None:
        """Read a little and go away."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            received = b""
            while received.count(b"x") + received.count(b"b") < 5000:
                received += client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    def record(self) -> dict[str, Any]:
        """The one record there must be."""
        wait_until(lambda: self.records.exists() and self.records.read_text(), what="the record")
        lines = self.records.read_text().splitlines()
        self.records.unlink()
        assert len(lines) == 1
        return dict(json.loads(lines[0]))


@pytest.fixture(scope="module", params=SERVERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "big").write_bytes(b"b" * BIG)
    port = free_port()
    environment = {
        "RECORDS": str(folder / "records"),
        "BIG_FILE": str(folder / "big"),
        "PYTHONPATH": str(SUPPORT),
    }
    process = ServerProcess(
        [
            "env",
            *(f"{k}={v}" for k, v in environment.items()),
            sys.executable,
            "-m",
            *SERVERS[request.param](port),
        ],
        log=folder / "log",
        ready=lambda: accepts_connections(port),
    )
    process.start()
    yield Server(port, folder / "records", sized=request.param == "waitress")
    process.stop()


@pytest.fixture
def server(running: Server) -> Server:
    running.records.unlink(missing_ok=True)
    return running


def test_a_page(server: Server) -> None:
    status, headers, body = server.ask("/")
    assert (status, body, headers["x-request-id"]) == (200, b"hello", "from-the-test")
    # waitress takes the length from len(); gunicorn sends chunks.
    assert headers.get("content-length") == ("5" if server.sized else None)
    record = server.record()
    assert (record["status"], record["bytes"], record["outcome"]) == (200, 5, "ok")
    assert (record["request_id"], record["client_ip"]) == ("from-the-test", "127.0.0.1")


def test_a_stream(server: Server) -> None:
    assert server.ask("/stream")[2] == b"abcabcabc"
    record = server.record()
    assert (record["bytes"], record["outcome"]) == (9, "ok")


def test_head(server: Server) -> None:
    status, _, body = server.ask("/stream", method="HEAD")
    assert (status, body) == (200, b"")
    record = server.record()
    assert (record["method"], record["bytes"], record["outcome"]) == ("HEAD", 0, "ok")


def test_a_client_that_leaves(server: Server) -> None:
    server.leave("/endless")
    record = server.record()
    assert (record["status"], record["outcome"]) == (200, "aborted")
    assert record["bytes"] > 0


def test_one_large_chunk_goes_out_whole(server: Server) -> None:
    assert len(server.ask("/one-chunk")[2]) == BIG
    record = server.record()
    assert (record["bytes"], record["outcome"]) == (BIG, "ok")


def test_a_client_that_leaves_within_one_large_chunk(server: Server) -> None:
    server.leave("/one-chunk")
    record = server.record()
    if server.sized:  # waitress takes the chunk into a buffer of its own and sends later: it says all is well
        assert record["outcome"] in ("ok", "aborted")
        return
    assert (record["status"], record["outcome"], record["bytes"]) == (200, "aborted", 0)


def test_an_application_that_fails_at_once(server: Server) -> None:
    status, headers, body = server.ask("/broken")
    assert (status, headers["x-request-id"]) == (500, "from-the-test")
    assert b"ValueError" not in body
    record = server.record()
    assert (record["status"], record["outcome"], record["exc_type"]) == (500, "error", "ValueError")


def test_an_application_that_fails_half_way(server: Server) -> None:
    assert server.ask("/breaks-later")[2] == b"abc"
    record = server.record()
    assert (record["status"], record["outcome"], record["bytes"]) == (200, "error", 3)


def test_a_file_goes_out_whole(server: Server) -> None:
    status, headers, body = server.ask("/file")
    assert (status, len(body), headers["content-length"]) == (200, BIG, str(BIG))
    record = server.record()
    assert (record["bytes"], record["outcome"]) == (BIG, "ok")


def test_a_file_whose_reader_leaves(server: Server) -> None:
    server.leave("/file")
    record = server.record()
    assert record["outcome"] == "aborted"
    assert 0 < record["bytes"] < BIG


FAILING = {
    "/fails-after-head": "ValueError",
    "/fails-in-body": "ValueError",
    "/fails-after-nothing": "ValueError",
    "/text": "TypeError",
    "/silent": "RuntimeError",
}


def ask_for_fields(server: Server, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def is_one_head(fields: http.client.HTTPMessage, body: bytes) -> bool:
    """Whether nothing of the failed answer is left: nginx answers two lengths with 502."""
    names = [name.lower() for name in fields]
    assert not {"etag", "set-cookie"} & set(names)
    assert fields.get_all("Cache-Control", ["no-store"]) == ["no-store"]
    return fields.get_all("Content-Length") == [str(len(body))]


@pytest.mark.parametrize("path", FAILING)
def test_an_error_before_the_first_byte_is_answered_with_one_head(server: Server, path: str) -> None:
    status, fields, body = ask_for_fields(server, path)
    assert (status, body) == (500, b"Internal Server Error\n")
    assert is_one_head(fields, body)
    record = server.record()
    assert (record["status"], record["outcome"], record["exc_type"]) == (500, "error", FAILING[path])


def test_an_application_that_answers_its_own_error_is_heard_once(server: Server) -> None:
    status, fields, body = ask_for_fields(server, "/answers-its-own-error")
    assert (status, body) == (500, b"oops")
    assert is_one_head(fields, body)
    assert server.record()["status"] == 500


def test_a_session_that_cannot_be_kept_is_answered_with_one_head(server: Server) -> None:
    status, fields, body = ask_for_fields(server, "/store-away")
    assert (status, fields["Retry-After"]) == (503, "2")
    assert is_one_head(fields, body)
