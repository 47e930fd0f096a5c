"""The readers of the load measurements: a connection that the server closes is opened again, as browsers do."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy_load import Load, Outcome, read

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NGINX = """
server {
    listen 127.0.0.1:@tls_port@ ssl;
    ssl_certificate @cert@;
    ssl_certificate_key @key@;
    keepalive_requests 3;
    location / { return 200 "ok"; }
}
"""


def load(port: int, seconds: float = 1.0) -> Outcome:
    return read(Load(port, ["c=1"], connections=2, seconds=seconds, think=None, path="/"))


def test_a_connection_that_nginx_ends_after_some_requests_is_no_error(make_nginx: Callable[..., Any]) -> None:
    nginx = make_nginx(NGINX)
    seen = load(nginx.tls_port)
    assert len(seen.seconds) > 2 * 3
    assert (seen.errors, seen.repeated) == ({}, 0)  # nginx announces it, so nothing is lost


@contextlib.contextmanager
def server(context: ssl.SSLContext, responses: list[bytes]) -> Iterator[int]:
    """Send these responses to the requests of each connection; close it at the next request.

    It closes at once after half a response.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as tls:
                for response in responses:
                    if not tls.recv(10_000):
                        return
                    tls.sendall(response)
                    if response != RESPONSE:
                        return
                tls.recv(10_000)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()


def test_a_request_without_a_response_is_repeated_and_counted_apart(certificates: Any) -> None:
    with server(certificates.server_context, [RESPONSE] * 4) as port:
        seen = load(port)
    assert seen.errors == {}
    # Each connection has four responses; the fifth request finds it closed.
    assert 0 < seen.repeated <= len(seen.seconds) / 4 + 2


@pytest.mark.parametrize(
    "responses",
    [[], [RESPONSE[:20]], [RESPONSE[:-1]], [RESPONSE, RESPONSE[:20]]],
    ids=["none", "head", "body", "second"],
)
def test_half_a_response_or_none_on_a_new_connection_is_an_error(
    certificates: Any, responses: list[bytes]
) -> None:
    with server(certificates.server_context, responses) as port:
        seen = load(port)
    assert seen.errors == {"IncompleteReadError": 2}
    assert (len(seen.seconds), seen.repeated) == (2 * max(0, len(responses) - 1), 0)
