"""Runs the WSGI tests against the ASGI middleware: each request becomes a scope, and then a WSGI environ again.

``bridged(kind)`` has the signature of the WSGI class of the same name, and clients must not notice a difference.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from mks_hardening._core.web.private_scope import private_scope

Message = dict[str, Any]
ODD = "asgi-odd"
SHELLS = ("wsgi", "asgi", ODD)
"""``asgi-odd``: ``path`` without ``root_path``, names in capitals, repeated lines, no raw path."""

_SPELLED = {
    "etag": "ETag",
    "www-authenticate": "WWW-Authenticate",
    "x-request-id": "X-Request-ID",
    "x-dns-prefetch-control": "X-DNS-Prefetch-Control",
    "x-ratelimit-limit": "X-RateLimit-Limit",
    "x-ratelimit-remaining": "X-RateLimit-Remaining",
    "x-ratelimit-reset": "X-RateLimit-Reset",
    "ratelimit": "RateLimit",
    "ratelimit-policy": "RateLimit-Policy",
}
_UNQUOTED = "/:@!$&'()*+,;=~"  # RFC 3986, 3.3: clients send these as they are
_WHOLE = {"CONTENT_TYPE", "CONTENT_LENGTH"}
_LINES = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")


def bridged(kind: Callable[..., Any], *, odd: bool = False, in_thread: bool = False) -> Callable[..., Any]:
    """Return a class of ``mks_hardening.asgi`` in the form of its WSGI counterpart.

    Args:
        kind: the class.
        odd: how the server describes requests, see ``SHELLS``.
        in_thread: whether the application runs in a worker thread, as ``def`` views of frameworks do.
    """

    def make(app: Any, **options: Any) -> Bridge:
        if isinstance(app, Bridge):
            inner: Any = app.asgi
        else:
            inner = asgi_of(app, in_thread=in_thread) if callable(app) else app
        return Bridge(kind(inner, **options), odd=odd)

    return make


class Bridge:
    """A WSGI application that sends its requests to an ASGI application."""

    def __init__(self, asgi: Any, *, odd: bool) -> None:
        self.asgi = asgi
        self.odd = odd

    def __getattr__(self, name: str) -> Any:
        return getattr(self.asgi, name)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        scope = private_scope(
            scope_of(environ, odd=self.odd)
        )  # what refuses a request leaves the reason in it
        exchange = drive(self.asgi, scope, body_of(environ), leaves_after=environ.get("test.leaves_after"))
        if "environ" in exchange.seen:
            environ.clear()
            environ.update(exchange.seen["environ"])
        environ.update({key: value for key, value in scope.items() if key.startswith("mks_hardening.")})
        if exchange.raised is not None and not exchange.sent:
            raise exchange.raised
        status, headers, body = exchange.answer()
        start_response(status_line(status), headers)
        return [body] if exchange.raised is None else _broken(body, exchange.raised)


class Exchange:
    """One request: the messages that the application sent, and the error that it raised."""

    def __init__(self, scope: Message) -> None:
        self.seen: Message = scope.setdefault("test.seen", {})
        self.sent: list[Message] = []
        self.raised: BaseException | None = None

    def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, header fields as a WSGI application spells them, and body."""
        if not self.sent:
            return 0, [], b""
        spelled = _SPELLED | {name.lower(): name for name in self.seen.get("names", ())}
        headers = []
        for name, value in self.sent[0].get("headers", ()):
            text = name.decode("latin-1")
            assert text == text.lower(), "ASGI demands names in lower case"
            headers.append((spelled.get(text, text.title()), value.decode("latin-1")))
        return self.sent[0]["status"], headers, b"".join(one.get("body", b"") for one in self.sent[1:])


def drive(app: Any, scope: Message, body: bytes = b"", *, leaves_after: int | None = None) -> Exchange:
    """Send one HTTP request on a new event loop.

    Args:
        app: the ASGI application.
        scope: the request.
        body: its body.
        leaves_after: number of body messages after which the client has left; later messages are dropped without
            an error, as today's servers do.
    """
    exchange = Exchange(scope)
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def call() -> None:
        ended = asyncio.Event()
        if leaves_after == 0:
            ended.set()

        async def receive() -> Message:
            if requests:
                return requests.pop(0)
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if ended.is_set():
                return
            exchange.sent.append(message)
            bodies = sum(one["type"] == "http.response.body" for one in exchange.sent)
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last or (leaves_after is not None and bodies >= leaves_after):
                ended.set()

        try:
            await app(scope, receive, send)
        except BaseException as error:  # noqa: BLE001 - a server logs it
            exchange.raised = error

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(call())
    return exchange


def scope_of(environ: Message, *, odd: bool = False) -> Message:
    """Return the scope of the request that this environ describes."""
    mount, below = _bytes(environ.get("SCRIPT_NAME", "")), _bytes(environ.get("PATH_INFO", ""))
    target = str(environ.get("REQUEST_URI") or environ.get("RAW_URI") or "").partition("?")[0]
    target = target if target.startswith("/") else ""  # servers hand on the path of an absolute one
    path = (below if odd else mount + below).decode("utf-8", "replace")
    peer, server = environ.get("REMOTE_ADDR"), environ.get("SERVER_NAME")
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": environ.get("REQUEST_METHOD", "GET"),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": path,
        "root_path": mount.decode("utf-8", "replace"),
        "query_string": _bytes(environ.get("QUERY_STRING", "")),
        "headers": [field for key, value in environ.items() for field in _fields(key, value, odd=odd)],
        "client": (peer, 50_000) if peer else None,
        "server": (server, int(environ.get("SERVER_PORT") or 80)) if server else None,
        "test.bytes": (mount, below),
    }
    if target or not odd or "\ufffd" in path:
        scope["raw_path"] = target.encode("latin-1") or quote(mount + below, _UNQUOTED).encode()
    return scope | {key: value for key, value in environ.items() if _is_result(key)}


def asgi_of(app: Callable[..., Any], *, in_thread: bool = False) -> Callable[..., Any]:
    """Return an ASGI application that runs a WSGI application in the task of the request, or ``in_thread``."""

    async def application(scope: Message, receive: Any, send: Any) -> None:
        body, message = b"", await receive()
        while message["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
            message = await receive()
        environ = environ_from(scope, body)
        steps = _steps(app, environ, scope["test.seen"])
        while True:
            step = await asyncio.to_thread(next, steps, None) if in_thread else next(steps, None)
            if step is None:
                return
            await send(step)

    return application


def environ_from(scope: Message, body: bytes) -> Message:
    """Return the environ that describes a scope, including what middleware added to the scope."""
    mount = scope["root_path"].encode("utf-8", "surrogatepass")
    below = scope["path"].encode("utf-8", "surrogatepass")
    if mount and (below == mount or below.startswith(mount + b"/")):
        below = below[len(mount) :]
    if b"\xef\xbf\xbd" in below:  # a byte that is not UTF-8
        below = scope["test.bytes"][1]
    client, server = scope.get("client"), scope.get("server")
    environ: Message = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": mount.decode("latin-1"),
        "PATH_INFO": below.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0] if server else "",
        "SERVER_PORT": str(server[1]) if server else "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in _WHOLE else f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]}, {text}" if key in environ else text
    return environ | {key: value for key, value in scope.items() if _is_result(key)}


def body_of(environ: Message) -> bytes:
    """The body of a request."""
    source = environ.get("wsgi.input")
    if source is None:
        return b""
    return bytes(source.read(int(environ["CONTENT_LENGTH"])) if environ.get("CONTENT_LENGTH") else b"")


def status_line(status: int) -> str:
    """The status as WSGI writes it."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def _steps(app: Callable[..., Any], environ: Message, seen: Message) -> Iterator[Message]:
    """The messages of the response of a WSGI application."""
    seen["environ"] = environ
    head: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head[:] = [(status, headers)]
        return written.append

    result = app(environ, start_response)
    try:
        started = False
        for chunk in _chunks(result, written):
            if not started and not head:
                return  # no response at all
            if not started:
                yield _start(head, seen)
                started = True
            yield {"type": "http.response.body", "body": chunk, "more_body": True}
        if head:
            if not started:
                yield _start(head, seen)
            yield {"type": "http.response.body"}
    finally:
        getattr(result, "close", lambda: None)()


def _broken(body: bytes, error: BaseException) -> Iterator[bytes]:
    yield body
    raise error


def _chunks(result: Iterable[bytes], written: list[bytes]) -> Iterator[bytes]:
    """Return the body: what the application has written, then what it returned."""
    for chunk in result:
        yield from written
        written.clear()
        yield chunk
    yield from written


def _start(head: list[tuple[str, list[tuple[str, str]]]], seen: Message) -> Message:
    status, headers = head[0]
    seen["names"] = [name for name, _ in headers]
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": int(status[:3]), "headers": fields}


def _bytes(text: str) -> bytes:
    """Encode a text of PEP 3333; some tests pass on what broken servers decode."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _fields(key: str, value: Any, *, odd: bool) -> list[tuple[bytes, bytes]]:
    if key in _WHOLE:
        name = key
    elif key.startswith("HTTP_"):
        name = key.removeprefix("HTTP_")
    else:
        return []
    name = name.replace("_", "-")
    if key == "HTTP_TRACEPARENT":
        value = value.strip(" \t")  # as servers do (RFC 9112, 5.1)
    lines = value.split(",") if odd and key in _LINES else [value]
    return [((name if odd else name.lower()).encode(), _bytes(line)) for line in lines]


def _is_result(key: str) -> bool:
    return key.startswith("mks_hardening.") or key in ("REMOTE_USER", "REQUEST_ID", "test.seen", "test.bytes")
