"""A real HTTP server that records requests and sends scripted responses."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from testbed.certificates import Certificates
from testbed.polling import wait_until


@dataclass(frozen=True)
class Answer:
    """A scripted response of the sink.

    Attributes:
        status: status code.
        headers: header fields, for example ``{"Retry-After": "2"}`` or ``{"Location": "..."}``.
        body: the content; a dict or list is sent as JSON.
        delay: seconds before the status line.
        raw: bytes sent instead of an HTTP answer (garbage).
        drop: reset the connection instead of answering.
        trickle: seconds between two bytes of the body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | dict[str, Any] | list[Any] = b"ok"
    delay: float = 0.0
    raw: bytes | None = None
    drop: bool = False
    trickle: float = 0.0

    def encoded(self) -> bytes:
        """Return the body as sent."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Request:
    """A request that the sink has received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class HttpSink:
    """An HTTP server on a free loopback port.

    Args:
        certificates: speak TLS with these.
    """

    def __init__(self, *, certificates: Certificates | None = None) -> None:
        self.certificates = certificates
        self.server_context = certificates.server_context if certificates else None
        self.host = "localhost"
        self.port = 0
        self.requests: list[Request] = []
        self.default: Answer | Callable[[Request], Answer] = Answer()
        self._script: deque[Answer] = deque()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Address without a path."""
        return f"{'https' if self.certificates else 'http'}://{self.host}:{self.port}"

    def start(self) -> None:
        """Listen; after a stop, on the same port again."""
        self.closing.clear()
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.sink = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},
            name="testbed-http",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port; responses in progress are cut off."""
        if self._server is None or self._thread is None:
            return
        self.closing.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.cut_connections()
        self._server.server_close()
        self._server = None

    def reset(self) -> None:
        """Delete recorded requests and scripted responses."""
        self.requests.clear()
        self._script.clear()
        self.default = Answer()

    def answer(self, *answers: Answer) -> None:
        """Send these responses, one per request, before the default one."""
        self._script.extend(answers)

    def wait_for(self, count: int = 1, *, timeout: float = 10) -> list[Request]:
        """Wait until ``count`` requests have arrived, and return all of them."""
        wait_until(lambda: len(self.requests) >= count, timeout=timeout, what=f"{count} request(s)")
        return list(self.requests)

    def take(self, request: Request) -> Answer:
        """Record a request and choose the response."""
        self.requests.append(request)
        with contextlib.suppress(IndexError):
            return self._script.popleft()
        return self.default(request) if callable(self.default) else self.default


class _Server(ThreadingHTTPServer):
    sink: HttpSink
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the TLS handshake on the connection's own thread, so that a silent client blocks no other."""
        if self.sink.server_context:
            request = self.sink.server_context.wrap_socket(request, server_side=True)
        self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            request.close()

    def cut_connections(self) -> None:
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect or reject the certificate: tests do that."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.sink.take(Request(self.command, self.path, dict(self.headers.items()), body))
        if answer.delay:
            self.server.sink.closing.wait(answer.delay)
        if answer.drop:
            self._reset()
        elif answer.raw is not None:
            self.wfile.write(answer.raw)
            self.close_connection = True
        else:
            self._say(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815 - http.server's names

    def _say(self, answer: Answer) -> None:
        content = answer.encoded()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name in answer.headers}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self._write(content, pause=answer.trickle)

    def _write(self, content: bytes, *, pause: float) -> None:
        if not pause:
            self.wfile.write(content)
            return
        for byte in content:
            if self.server.sink.closing.wait(pause):
                return
            self.wfile.write(bytes([byte]))

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Do not log."""
