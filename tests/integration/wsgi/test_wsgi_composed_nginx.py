"""Limits of request sizes behind nginx, under gunicorn and uvicorn: a refusal of either side reaches the client."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from composed_server import ComposedServer
from testbed.nginx_server import NginxServer

pytestmark = [pytest.mark.slow, pytest.mark.nginx]
OURS, NGINX = 16_384, 65_536
CONFIG = """
server {
    listen 127.0.0.1:@port@;
    client_max_body_size 64k;
    client_body_buffer_size 128k;
    location / {
        proxy_pass http://127.0.0.1:@app@;
        proxy_http_version 1.1;
        proxy_request_buffering @buffering@;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
}
"""


class Reply(NamedTuple):
    status: int
    head: bytes
    interim: bool


def send(port: int, size: int, *lines: str, chunked: bool = False, waits: bool = False) -> Reply:
    """Send a body, and read the response to its end, whether or not all of the body could be sent."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    head = ["POST /upload HTTP/1.1", "Host: localhost", "Connection: close", length, *lines, "", ""]
    body = b"x" * size
    if chunked:
        body = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(size // 1024)) + b"0\r\n\r\n"
    with socket.create_connection(("localhost", port), timeout=30) as client:
        client.sendall("\r\n".join(head).encode())
        received = b""
        if waits:
            received = client.recv(65_536)
        interim = received.startswith(b"HTTP/1.1 100")
        if not waits or interim:
            received = received.partition(b"\r\n\r\n")[2] if interim else received
            with contextlib.suppress(ConnectionError):  # it was refused before all of it was sent
                client.sendall(body)
        with contextlib.suppress(ConnectionError):
            received += b"".join(iter(lambda: client.recv(65_536), b""))
    start = received.partition(b"\r\n\r\n")[0]
    assert start, "the connection ended without a response"
    return Reply(int(start.split()[1]), start, interim)


@pytest.fixture(params=["asgi", "wsgi"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ComposedServer]:
    # CSRF: a request without Origin and cookies is not one of a browser.
    server = ComposedServer(tmp_path, {"MKS_MAX_BODY": str(OURS)}, kind=request.param)
    yield server
    server.process.stop()


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_both_limits_reach_the_client(
    app: ComposedServer, make_nginx: Callable[..., NginxServer], buffering: str
) -> None:
    port = make_nginx(CONFIG, values={"app": str(app.port), "buffering": buffering}).port
    for options in ({}, {"chunked": True}, {"waits": True}):
        more: dict[str, Any] = dict(options)
        lines = ["Expect: 100-continue"] if more.get("waits") else []
        assert send(port, OURS, *lines, **more).status == 200, options
        ours = send(port, OURS + 4096, *lines, **more)
        assert (ours.status, b"application/problem+json" in ours.head) == (413, True), options
        theirs = send(port, NGINX + 4096, *lines, **more)
        assert theirs.status == 413, options
        if not options:
            assert b"application/problem+json" not in theirs.head


def test_a_body_that_is_too_large_is_refused_without_a_proxy(app: ComposedServer) -> None:
    proxied = "X-Forwarded-For: 203.0.113.9"
    assert send(app.port, OURS, proxied, "Expect: 100-continue", waits=True).status == 200
    refused = send(app.port, OURS + 4096, proxied, "Expect: 100-continue", waits=True)
    assert refused.status == 413
    assert send(app.port, OURS + 4096, proxied, chunked=True).status == 413
