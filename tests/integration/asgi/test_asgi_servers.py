"""The ASGI edge under real servers, over real sockets: clients that leave, streams, sockets, uploads, shutdown."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[2] / "support"
UVICORN = ("uvicorn", "--no-proxy-headers", "--no-access-log", "--timeout-graceful-shutdown", "1", "--port")
APP = "asgi_server_apps:application"
SERVERS = {
    "uvicorn asyncio": [*UVICORN, "{port}", "--loop", "asyncio", "--http", "h11", APP],
    "uvicorn uvloop": [*UVICORN, "{port}", "--loop", "uvloop", APP],
    "hypercorn": ["hypercorn", "--graceful-timeout", "1", "--bind", "127.0.0.1:{port}", APP],
    "granian": [
        *(
            "granian",
            "--interface",
            "asgi",
            "--workers",
            "1",
            "--no-access-log",
            "--workers-kill-timeout",
            "3",
        ),
        *("--host", "127.0.0.1", "--port", "{port}", APP),
    ],
}
PROXIED = ("Host: www.example.com", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
SESSION = "__Host-mks-session"


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """One server process, and the records it has written."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.records_file = folder / "records"
        self.records_file.touch()
        environ = [
            f"PYTHONPATH={SUPPORT}",
            f"RECORDS={self.records_file}",
            f"HOME={os.environ.get('HOME', '/')}",
        ]
        command = [part.format(port=self.port) for part in SERVERS[name]]
        self.process = ServerProcess(
            ["env", *environ, "PYTHONWARNINGS=ignore", sys.executable, "-m", *command],
            log=folder / "log",
            ready=lambda: accepts_connections(self.port),
        )
        self.process.start()

    def records(self, path: str) -> list[dict[str, Any]]:
        lines = self.records_file.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in found if record["path"] == path]

    def record(self, path: str) -> dict[str, Any]:
        """The only record of a path, as soon as it is there."""
        wait_until(lambda: self.records(path), what=f"a record of {path}")
        [record] = self.records(path)
        return record

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, *lines: str, body: bytes = b"") -> Answer:
        """Send lines as they are, and read the answer to its end."""
        with self.open() as client:
            client.sendall(message(*lines, "Connection: close") + body)
            return parsed(b"".join(iter(lambda: client.recv(65536), b"")))

    def get(self, path: str, *lines: str) -> Answer:
        return self.ask(f"GET {path} HTTP/1.1", *PROXIED, *lines)

    def websocket(self, path: str, **headers: str) -> ClientConnection:
        fields = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", **headers}
        return connect(
            f"ws://www.example.com{path}",
            sock=self.open(),
            additional_headers=fields,
            proxy=None,
            open_timeout=10,
            close_timeout=5,
        )


def message(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parsed(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    named = {name.lower(): value.strip() for name, _, value in pairs}
    if named.get("transfer-encoding") == "chunked":
        body = b"".join(unchunked(body))
    return Answer(int(status.split()[1]), named, body)


def unchunked(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        yield body[:length]
        body = body[length + 2 :]
        if not length:
            return


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(request.param, tmp_path_factory.mktemp("asgi"))
    yield started
    started.process.stop()


# --- what the application sees


def test_behind_a_proxy(server: Server) -> None:
    answer = server.get("/seen", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6")
    assert answer.status == 200
    seen = answer.json
    assert (seen["scheme"], seen["client"]) == ("https", ["203.0.113.9", 0])
    names = {name for name, _ in seen["headers"]}
    assert not names & {"x-real-ip", "forwarded"}
    assert answer.fields["x-request-id"] == seen["request_id"]
    assert "max-age" in answer.fields["strict-transport-security"]
    record = server.record("/seen")
    assert (record["status"], record["outcome"], record["client_ip"]) == (200, "ok", "203.0.113.9")
    assert record["bytes"] == len(answer.body)


def test_a_prefix_becomes_the_root_path(server: Server) -> None:
    seen = server.get("/page", "X-Forwarded-Prefix: /shop").json
    assert (seen["root_path"], seen["path"]) == ("/shop", "/shop/page")


def test_plain_http_is_redirected(server: Server) -> None:
    answer = server.ask("GET /plain?x=1 HTTP/1.1", "Host: www.example.com:8080")
    assert (answer.status, answer.fields["location"]) == (301, "https://www.example.com/plain?x=1")
    assert server.record("/plain")["status"] == 301


def test_a_hostile_host_is_refused(server: Server) -> None:
    answer = server.ask("GET /evil HTTP/1.1", "Host: evil.test", *PROXIED[1:])
    assert (answer.status, answer.json["status"]) == (400, 400)


def test_an_exception_becomes_a_500_with_the_id(server: Server) -> None:
    answer = server.get("/broken")
    assert answer.status == 500
    assert answer.fields["x-request-id"]
    assert "content-security-policy" in answer.fields
    assert server.record("/broken")["outcome"] == "error"


def test_a_500_of_fastapi_is_recorded_once(server: Server) -> None:
    answer = server.get("/fastapi/broken")
    assert answer.status == 500
    assert answer.fields["x-request-id"]
    record = server.record("/fastapi/broken")
    assert (record["status"], record["outcome"]) == (500, "error")


def test_head(server: Server) -> None:
    answer = server.ask("HEAD /head HTTP/1.1", *PROXIED)
    assert (answer.status, answer.body) == (200, b"")
    record = server.record("/head")
    assert (record["method"], record["bytes"], record["outcome"]) == ("HEAD", 0, "ok")
    assert server.ask("HEAD /livez HTTP/1.1", "Host: 10.0.0.7").body == b""


def test_keep_alive(server: Server) -> None:
    with server.open() as client:
        for number in range(3):
            client.sendall(message(f"GET /kept/{number} HTTP/1.1", *PROXIED))
            received = b""
            while b"\r\n\r\n" not in received or len(parsed(received).body) < int(
                parsed(received).fields["content-length"]
            ):
                received += client.recv(65536)
            assert parsed(received).json["path"] == f"/kept/{number}"
    ids = {server.record(f"/kept/{number}")["request_id"] for number in range(3)}
    assert len(ids) == 3


def test_limits_count_the_client_behind_the_proxy(server: Server) -> None:
    assert [server.get("/limited").status for _ in range(4)] == [200, 200, 200, 429]
    other = server.ask("GET /limited HTTP/1.1", PROXIED[0], "X-Forwarded-For: 198.51.100.7", PROXIED[2])
    assert other.status == 200


def test_a_session_from_sign_in_to_the_next_request(server: Server) -> None:
    answer = server.get("/sign-in")
    cookie = answer.fields["set-cookie"].partition(";")[0]
    assert cookie.startswith(SESSION)
    assert server.get("/mine", f"Cookie: {cookie}").json["alive"] is True
    assert server.record("/mine")["user_id"] == "alice"
    assert server.get("/forged", f"Cookie: {SESSION}={'A' * 43}").status == 401


# --- deadlines, concurrent requests, cookies, bans


@pytest.mark.parametrize("path", ["/late", "/fastapi/late"])
def test_a_late_application_gets_504_and_the_server_goes_on(server: Server, path: str) -> None:
    began = time.monotonic()
    answer = server.get(path)
    assert (answer.status, answer.json["limit"]) == (504, 0.5)
    assert time.monotonic() - began < 10  # a stuck request would wait for the socket's time-out
    record = server.record(path)
    assert (record["status"], record["outcome"]) == (504, "ok")
    assert server.get("/seen-after-the-deadline").status == 200


def test_a_stream_is_cut_off_only_if_its_rule_says_so(server: Server) -> None:
    assert server.get("/slow-stream").body == b"partpartpartend"
    with server.open() as client:
        client.sendall(message("GET /cut-stream HTTP/1.1", *PROXIED, "Connection: close"))
        received = b""
        with contextlib.suppress(OSError):  # a reset is as good as an end
            while data := client.recv(65536):
                received += data
    assert received.startswith(b"HTTP/1.1 200")
    assert b"end" not in received
    assert not received.endswith(b"0\r\n\r\n"), "the client must notice that a part is missing"
    record = server.record("/cut-stream")
    assert (record["status"], record["outcome"]) == (200, "error")


def test_requests_beyond_the_limit_are_refused_at_once(server: Server) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: server.get("/crowded"), range(3)))
    assert sorted(answer.status for answer in answers) == [200, 503, 503]
    assert {answer.fields.get("retry-after") for answer in answers} == {None, "1"}
    assert server.get("/crowded?soon").status == 200


def test_a_client_that_leaves_while_it_waits_takes_no_slot(server: Server) -> None:
    request = message("GET /queue HTTP/1.1", *PROXIED, "Connection: close")
    with ThreadPoolExecutor(1) as pool, server.open() as first:
        first.sendall(request)
        time.sleep(0.2)  # granian takes connections in any order
        with server.open() as gone:
            gone.sendall(request)
            time.sleep(0.2)
        last = pool.submit(server.get, "/queue")
        assert b"your turn" in b"".join(iter(lambda: first.recv(65536), b""))
        assert last.result().body == b"your turn"
    wait_until(lambda: len(server.records("/queue")) == 3, what="three records")
    ends = sorted((record["status"], record["outcome"]) for record in server.records("/queue"))
    assert ends == [(0, "aborted"), (200, "ok"), (200, "ok")]


def test_cookies_of_the_application_are_hardened(server: Server) -> None:
    cookie = server.get("/cookies").fields["set-cookie"]
    assert cookie == "theme=dark; Secure; HttpOnly; SameSite=Lax"


def test_a_client_is_banned_after_its_offences(server: Server) -> None:
    prober = (PROXIED[0], "X-Forwarded-For: 198.51.100.66", PROXIED[2])
    statuses = [server.ask("GET /missing HTTP/1.1", *prober).status for _ in range(4)]
    assert statuses == [404, 404, 404, 403]
    assert server.get("/not-banned").status == 200
    with pytest.raises(InvalidStatus) as refused:
        server.websocket("/socket", **{"X-Forwarded-For": "198.51.100.66"})
    assert refused.value.response.status_code == 403


# --- bodies


@pytest.mark.parametrize("path", ["/stream", "/fastapi/stream"])
def test_a_client_leaves_in_the_middle_of_a_stream(server: Server, path: str) -> None:
    # The small application never calls receive; StreamingResponse does.
    with server.open() as client:
        client.sendall(message(f"GET {path} HTTP/1.1", *PROXIED))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    record = server.record(path)
    assert (record["status"], record["outcome"]) == (200, "aborted")


def test_a_stream_whose_client_left_is_never_cached_in_part(server: Server) -> None:
    with server.open() as client:
        client.sendall(message("GET /fastapi/cached HTTP/1.1", *PROXIED))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    wait_until(lambda: server.records("/fastapi/cached"), what="the record of the client that left")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.get("/fastapi/cached"), range(4)))
    answers.append(server.get("/fastapi/cached"))
    assert {len(answer.body) for answer in answers} == {20 * 8192 + len(b"end of 1")}
    assert len({answer.body for answer in answers}) == 1  # four cold requests, one response
    assert answers[-1].fields["age"].isdecimal()
    assert answers[-1].fields["content-length"] == str(len(answers[-1].body))
    tag = answers[-1].fields["etag"]
    assert server.get("/fastapi/cached", f"If-None-Match: {tag}").status == 304


def test_a_stream_read_whole_is_ok(server: Server) -> None:
    answer = server.get("/whole")
    assert len(answer.body) == 50 * 8192
    record = server.record("/whole")
    assert (record["outcome"], record["bytes"]) == ("ok", 50 * 8192)


def test_uploads_stream(server: Server) -> None:
    """The first part reaches the application, and its answer the client, before the second part is sent."""
    if server.name == "hypercorn":
        pytest.skip("Hypercorn sends the answer after the whole request")
    with server.open() as client:
        lines = ("POST /upload HTTP/1.1", *PROXIED, "Transfer-Encoding: chunked", "Connection: close")
        client.sendall(message(*lines) + b"5\r\nhello\r\n")
        received = client.recv(65536)
        while b"first;" not in received:
            received += client.recv(65536)
        client.sendall(b"6\r\n world\r\n0\r\n\r\n")
        received += b"".join(iter(lambda: client.recv(65536), b""))
    assert parsed(received).body == b"first;total 11"


@pytest.mark.parametrize("path", ["/upload", "/fastapi/upload"])
def test_a_large_upload_arrives_whole(server: Server, path: str) -> None:
    size = 3_000_000
    answer = server.ask(f"POST {path} HTTP/1.1", *PROXIED, f"Content-Length: {size}", body=b"u" * size)
    assert b"total 3000000" in answer.body


def test_a_client_is_told_to_continue(server: Server) -> None:
    with server.open() as client:
        lines = ("POST /upload HTTP/1.1", *PROXIED, "Content-Length: 5", "Expect: 100-continue")
        client.sendall(message(*lines, "Connection: close"))
        assert client.recv(65536).startswith(b"HTTP/1.1 100")
        client.sendall(b"hello")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"total 5" in received


def test_a_refused_upload_is_not_asked_for(server: Server) -> None:
    with server.open() as client:
        lines = ("POST /forged-upload HTTP/1.1", *PROXIED, "Content-Length: 5", "Expect: 100-continue")
        client.sendall(message(*lines, "Origin: https://evil.test", "Connection: close"))
        answer = client.recv(65536)
        if server.name == "hypercorn":  # asks for every body
            answer = answer.partition(b"\r\n\r\n")[2] or client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 403")


def test_a_file_by_path(server: Server) -> None:
    answer = server.get("/file")
    assert answer.body == b"a whole file"
    assert answer.fields["x-content-type-options"] == "nosniff"
    record = server.record("/file")
    assert (record["outcome"], record["bytes"]) == ("ok", 12)
    extensions = server.get("/extensions").json["extensions"]
    assert ("http.response.pathsend" in extensions) == (server.name == "granian")


# --- WebSockets


def test_a_websocket_from_open_to_close(server: Server) -> None:
    cookie = server.get("/sign-in").fields["set-cookie"].partition(";")[0]
    with server.websocket("/chat", Origin="https://www.example.com", Cookie=cookie) as chat:
        assert chat.recv(10) == "alice wss 203.0.113.9"
        chat.send("hello")
        assert chat.recv(10) == "hello"
    record = server.record("/chat")
    # Hypercorn reports every closure as abnormal (1006).
    outcome = "aborted" if server.name == "hypercorn" else "ok"
    assert (record["status"], record["outcome"], record["user_id"]) == (101, outcome, "alice")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/other-site", {"Origin": "https://evil.test"}, 403),
        ("/ended-session", {"Cookie": f"{SESSION}={'A' * 43}"}, 401),
        ("/clear", {"X-Forwarded-Proto": "http"}, 403),
    ],
)
def test_a_websocket_is_denied(server: Server, path: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as denied, server.websocket(path, **headers):
        pass
    assert denied.value.response.status_code == status
    assert denied.value.response.headers["x-request-id"]
    assert server.record(path)["status"] == status


def test_a_websocket_whose_client_vanishes(server: Server) -> None:
    with contextlib.suppress(ConnectionClosed), server.websocket("/vanish") as chat:
        chat.recv(10)
        chat.socket.shutdown(socket.SHUT_RDWR)
    # The other servers report it like a closure without a code (1005).
    assert server.record("/vanish")["outcome"] == ("aborted" if server.name == "hypercorn" else "ok")


# --- the end of a server


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_shuts_down_in_the_middle_of_a_stream(name: str, tmp_path: Path) -> None:
    server = Server(name, tmp_path)
    try:
        with server.open() as client:
            client.sendall(message("GET /endless HTTP/1.1", *PROXIED))
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            os.kill(server.process.pid, signal.SIGTERM)
            client.settimeout(15)
            # Hypercorn does not end the stream on Python 3.12 and later, where a server waits for its connections.
            patience = time.monotonic() + 5
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < patience and client.recv(65536):
                    pass
        if name != "granian":  # kills its worker
            record = server.record("/endless")
            assert (record["status"], record["outcome"]) == (200, "aborted")
    finally:
        server.process.stop()
