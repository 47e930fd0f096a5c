"""Bodies above a limit on real servers: the client gets the refusal, also if it is still sending."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[2] / "support"
WSGI, ASGI = "refused_body_apps:over_wsgi", "refused_body_apps:over_asgi"
GUNICORN = ("gunicorn", "-w", "1", "--no-control-socket", "-b", "127.0.0.1:{port}")
GRANIAN = (
    "granian",
    "--workers",
    "1",
    "--no-access-log",
    "--host",
    "127.0.0.1",
    "--port",
    "{port}",
    "--interface",
)
SERVERS: dict[str, list[str]] = {
    "gunicorn": [*GUNICORN, WSGI],
    "gunicorn threads": [*GUNICORN, "--threads", "4", WSGI],
    "gunicorn asgi": [*GUNICORN, "-k", "asgi", ASGI],
    "waitress": ["waitress", "--listen", "127.0.0.1:{port}", WSGI],
    "granian wsgi": [*GRANIAN, "wsgi", WSGI],
    "granian asgi": [*GRANIAN, "asgi", ASGI],
    "uvicorn": ["uvicorn", "--http", "h11", "--no-access-log", "--port", "{port}", ASGI],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", ASGI],
}
PARAMS = [
    pytest.param(name, marks=() if name in ("gunicorn", "uvicorn") else pytest.mark.slow) for name in SERVERS
]
# Servers whose reads do not wait for a client, or whose connection can be ended.
DRIPPED = [param for param in PARAMS if param.values[0] not in ("waitress", "granian wsgi")]
LARGE = 5_000_000  # more than the buffers of both sockets together


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def limit(self) -> Any:
        return json.loads(self.body).get("limit")


def post(port: int, path: str, *fields: str, body: bytes = b"") -> Answer:
    """Send a whole request before the answer is read, as many HTTP clients do."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Origin: http://localhost", *fields]
        client.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, rest = received.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), rest)


def chunked(body: bytes, size: int = 50_000) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.fixture(
    scope="module",
    params=PARAMS,
)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = free_port()
    environ = (f"PYTHONPATH={SUPPORT}", f"HOME={os.environ.get('HOME', '/')}", "PYTHONWARNINGS=ignore")
    command = [part.format(port=number) for part in SERVERS[request.param]]
    process = ServerProcess(
        ["env", *environ, sys.executable, "-m", *command],
        log=tmp_path_factory.mktemp("refused") / "log",
        ready=lambda: accepts_connections(number),
    )
    process.start()
    yield number
    process.stop()


def test_a_client_that_is_still_sending_gets_the_413(port: int) -> None:
    for _ in range(3):
        answer = post(port, "/api/x", f"Content-Length: {LARGE}", body=b"x" * LARGE)
        assert (answer.status, answer.limit) == (413, 1000)
    assert post(port, "/api/x", "Content-Length: 5", body=b"xxxxx").body == b"x 5"


def test_a_client_that_is_still_sending_chunks_gets_the_413(port: int) -> None:
    for _ in range(3):
        answer = post(port, "/api/x", "Transfer-Encoding: chunked", body=chunked(b"x" * LARGE))
        assert (answer.status, answer.limit) == (413, 1000)
    answer = post(port, "/api/x", "Transfer-Encoding: chunked", body=chunked(b"x" * 1000, 7))
    assert b"x 1000" in answer.body.replace(b"\r\n", b"")


@pytest.mark.parametrize("port", DRIPPED, indirect=True)
def test_a_client_that_sends_a_byte_now_and_then_is_not_waited_for(port: int) -> None:
    """A read of gunicorn waits until it has all bytes: at this pace, for days."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        fields = ("Host: localhost", "Origin: http://localhost", f"Content-Length: {LARGE}")
        client.sendall("\r\n".join(["POST /api/x HTTP/1.1", *fields, "", ""]).encode())
        client.setblocking(False)
        received = b""
        for _ in range(300):
            time.sleep(0.1)
            try:
                client.send(b"x")
                received += (part := client.recv(65536))
            except BlockingIOError:
                continue
            except OSError:
                break
            if not part:
                break
        else:
            pytest.fail("the connection is still open")
    assert b" 413 " in received.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "path", ["/api/..;/upload/x", "/api/%2e%2e/upload/x", "/api/./../upload/x", "/api/%252e%252e/upload/x"]
)
def test_another_spelling_of_a_path_has_no_larger_limit(port: int, path: str) -> None:
    assert post(port, "/upload/x", "Content-Length: 5000", body=b"x" * 5000).body == b"x 5000"
    assert post(port, path, "Content-Length: 5000", body=b"x" * 5000).status == 413


@pytest.mark.parametrize(
    "length",
    [
        "9" * 18,
        "9" * 19,
        "9" * 40,
        "9" * 5000,
        "0" * 30 + "5000",
        "-1",
        "+5",
        "1_000",
        "5 5",
        "5, 6",
        "0x5",
        "",
        "٥",
    ],
)
def test_no_length_leads_to_an_internal_error(port: int, length: str) -> None:
    fields = (
        "Host: localhost",
        "Origin: http://localhost",
        "Expect: 100-continue",
        f"Content-Length: {length}",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall("\r\n".join(["POST /api/x HTTP/1.1", *fields, "", ""]).encode())
        received = client.recv(65536)
        if received.startswith(b"HTTP/1.1 100 "):  # of servers that read the body first
            with contextlib.suppress(OSError):  # if it is closed already
                client.shutdown(socket.SHUT_WR)
            received = received.partition(b"\r\n\r\n")[2] or client.recv(65536)
    # Some servers close the connection themselves.
    assert received[:13] in (b"", b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")
