"""Deadlines, slots and cookies of frameworks under real WSGI servers, asked over real sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[2] / "support"
SERVERS = {
    "gunicorn": [
        *("gunicorn", "-w", "1", "--threads", "4", "--no-control-socket", "--forwarded-allow-ips", ""),
        *("-b", "127.0.0.1:{port}"),
    ],
    "waitress": [
        *("waitress", "--no-clear-untrusted-proxy-headers", "--threads", "4", "--listen", "127.0.0.1:{port}"),
    ],
    "granian": [
        *("granian", "--interface", "wsgi", "--workers", "1", "--blocking-threads", "4", "--no-access-log"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ],
}
PROXIED = ("Host: www.example.com", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


class Server:
    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, line: str, *fields: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall("\r\n".join([line, *PROXIED, *fields, "Connection: close", "", ""]).encode())
        return client

    def get(self, path: str, *fields: str, method: str = "GET", version: str = "1.1") -> Answer:
        with self.send(f"{method} {path} HTTP/{version}", *fields) as client:
            received = b"".join(iter(lambda: client.recv(65536), b""))
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, rest)


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    folder = tmp_path_factory.mktemp("load")
    environ = (f"PYTHONPATH={SUPPORT}", f"HOME={os.environ.get('HOME', '/')}", "PYTHONWARNINGS=ignore")
    process = ServerProcess(
        [
            *("env", *environ, sys.executable, "-m"),
            *(part.format(port=port) for part in SERVERS[request.param]),
            "wsgi_load_app:mounted",
        ],
        log=folder / "log",
        ready=lambda: accepts_connections(port),
    )
    process.start()
    yield Server(port)
    process.stop()


@pytest.mark.parametrize("stack", ["alone", "whole"])
@pytest.mark.parametrize("path", ["late-before", "late-view"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_late_response_without_a_byte_is_504(server: Server, stack: str, path: str, version: str) -> None:
    answer = server.get(f"/{stack}/{path}", version=version)
    assert (answer.status, answer.fields["content-type"]) == (504, "application/problem+json")
    assert int(answer.fields["content-length"]) == len(answer.body)
    assert "x-of-the-application" not in answer.fields
    assert server.get(f"/{stack}/fine").body == b"fine"


@pytest.mark.parametrize("stack", ["alone", "whole"])
def test_a_late_stream_is_broken_off(server: Server, stack: str) -> None:
    answer = server.get(f"/{stack}/late-after")
    assert (answer.status, answer.fields["transfer-encoding"]) == (200, "chunked")
    assert answer.body.endswith(b"first part\n\r\n")
    assert not answer.body.endswith(b"0\r\n\r\n"), "the client must notice that a part is missing"


@pytest.mark.parametrize("stack", ["alone", "whole"])
def test_a_client_that_leaves_a_stream_releases_its_slot(server: Server, stack: str) -> None:
    def streams() -> bool:
        with server.send(f"GET /{stack}/stream HTTP/1.1") as client:
            if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                return False
            refused = server.get(f"/{stack}/stream")
            return (refused.status, refused.fields["retry-after"]) == (503, "1")

    for _ in range(2):  # the second one gets the slot of the first
        wait_until(streams, what="a free slot")


@pytest.mark.parametrize(("framework", "name"), [("flask", "session"), ("django", "sessionid")])
def test_sessions_of_frameworks_work_with_a_cookie_policy(server: Server, framework: str, name: str) -> None:
    begun = server.get(f"/{framework}/in")
    pair, *attributes = begun.fields["set-cookie"].split("; ")
    assert pair.startswith(f"{name}=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    assert len({each.partition("=")[0].lower() for each in attributes}) == len(attributes)
    assert server.get(f"/{framework}/who", f"Cookie: {pair}").body == b"taro"
    ended = server.get(f"/{framework}/out", f"Cookie: {pair}")
    assert "Max-Age=0" in ended.fields["set-cookie"]
    assert server.get(f"/{framework}/who").body == b"nobody"


def test_the_token_of_django_stays_readable_and_valid(server: Server) -> None:
    begun = server.get("/django/token")
    pair, *attributes = begun.fields["set-cookie"].split("; ")
    assert "Secure" in attributes
    assert "HttpOnly" not in attributes  # scripts send its value in a header
    fields = (f"Cookie: {pair}", "Origin: https://www.example.com", "Content-Length: 0")
    assert server.get("/django/form", *fields, method="POST").status == 403
    token = f"X-CSRFToken: {begun.body.decode()}"
    assert server.get("/django/form", *fields, token, method="POST").body == b"accepted"
