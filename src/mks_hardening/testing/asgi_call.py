"""One request to an ASGI application, with both sides checked against the ASGI specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from mks_hardening.testing._header_fields import field_pairs, only_value

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send

__all__ = ["ASGIResponse", "call_asgi"]


_LONGEST: Final = 30.0
_SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
_CONNECTION: Final[dict[str, object]] = {
    "asgi": {"version": "3.0", "spec_version": "2.5"},
    "http_version": "1.1",
    "root_path": "",
    "client": ("127.0.0.1", 50_000),
    "server": ("server.internal", 8000),
}
_UNQUOTED: Final = "/:@!$&'()*+,;=~"  # RFC 3986, 3.3
_DENIAL: Final = "websocket.http.response"


class ASGIResponse(NamedTuple):
    """Response of an ASGI application.

    Attributes:
        status: status code; 101 for a WebSocket that was accepted, 403 for one that was closed instead.
        headers: header fields in order.
        body: the whole body.
        scope: the scope that the wrapped application received; without ``wrap``, the one that was sent.
        received: messages of the application to the client of a WebSocket.
        close_code: code with which the application closed the WebSocket, or ``None``.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    scope: MutableMapping[str, Any]
    received: list[str | bytes]
    close_code: int | None

    def header(self, name: str) -> str | None:
        """Return the value of the only header field of that name; ``None`` if there is none.

        Raises:
            AssertionError: there are several.
        """
        return only_value(self.headers, name)


def call_asgi(
    app: ASGIApplication,
    path: str = "/",
    *,
    wrap: Callable[[ASGIApplication], ASGIApplication] | None = None,
    method: str = "GET",
    query: str = "",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    scheme: str = "http",
    scope: Mapping[str, Any] | None = None,
    websocket: Iterable[str | bytes] | None = None,
) -> ASGIResponse:
    """Send one request to an ASGI application, on an event loop of its own, and check its messages.

    There is no lifespan. The client stays until the response is complete; that of a WebSocket sends its messages
    and then leaves with 1000. An ``async def`` test cannot call this, because its loop is running.

    Args:
        app: the application.
        path: request path, decoded.
        wrap: wraps the application in a middleware; then both sides of the middleware are checked.
        method: request method.
        query: query string as sent.
        headers: request header fields.
        body: request body.
        scheme: ``http`` or ``https``; a WebSocket gets ``ws`` or ``wss``.
        scope: further keys of the scope; ``None`` removes a key.
        websocket: opens a WebSocket on which the client sends these messages. The server can send denial responses.

    Returns:
        The response.

    Raises:
        AssertionError: the application or the middleware violates the protocol (ASGI 3), or the response is not
            complete after 30 seconds.
    """
    import asyncio

    fields = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in field_pairs(headers)
    ]
    if not any(name == b"host" for name, _ in fields):
        fields.insert(0, (b"host", b"localhost"))
    if body:
        fields.append((b"content-length", str(len(body)).encode()))
    raw = path.encode("utf-8", "surrogateescape")
    request: dict[str, Any] = {
        **_CONNECTION,
        "scheme": scheme,
        "path": raw.decode("utf-8", "replace"),
        "raw_path": quote(raw, _UNQUOTED).encode(),
        "query_string": query.encode("latin-1"),
        "headers": fields,
        "state": {},
        "extensions": {},
    }
    if websocket is None:
        request |= {"type": "http", "method": method}
    else:
        request |= {"type": "websocket", "scheme": _SOCKET_SCHEMES.get(scheme, scheme), "subprotocols": []}
        request["extensions"] = {_DENIAL: {}}
    given = dict(scope or {})
    request |= given
    for key in [key for key, value in given.items() if value is None]:
        del request[key]
    seen: list[Scope] = [request]

    async def innermost(inner: Scope, receive: Receive, send: Send) -> None:
        seen.append(inner)
        await app(inner, receive, _Checked(inner, send).send)

    under_test = wrap(innermost) if wrap else innermost
    client = _ClientSide(body, websocket)

    async def exchange() -> None:
        client.ended = asyncio.Event()
        deadline = asyncio.timeout(_LONGEST)
        try:
            async with deadline:
                await under_test(request, client.receive, _Checked(request, client.send).send)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise AssertionError(f"no complete response within {_LONGEST:g} seconds") from error

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(exchange())
    return client.answer(seen[-1])


class _ClientSide:
    """The other end of the connection."""

    ended: Any  # an asyncio.Event of the loop

    def __init__(self, body: bytes, websocket: Iterable[str | bytes] | None) -> None:
        self._opened = websocket is not None
        self._sends: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        if websocket is not None:
            self._sends = [{"type": "websocket.connect"}]
            for data in websocket:
                kind = "text" if isinstance(data, str) else "bytes"
                self._sends.append({"type": "websocket.receive", kind: data})
        self._sends.reverse()
        self._got: list[Message] = []

    async def receive(self) -> Message:
        if self._sends:
            return self._sends.pop()
        if self._opened:
            return {"type": "websocket.disconnect", "code": 1000}
        await self.ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if "headers" in message:
            message = {**message, "headers": list(message["headers"])}
        self._got.append(message)
        if _ends(message):
            self.ended.set()

    def answer(self, scope: Scope) -> ASGIResponse:
        status, headers, chunks, code = 0, list[tuple[bytes, bytes]](), list[bytes](), None
        received: list[str | bytes] = []
        for message in self._got:
            kind = message["type"]
            if kind.endswith("http.response.start"):
                status, headers = message["status"], message.get("headers", [])
            elif kind.endswith("http.response.body"):
                chunks.append(message.get("body", b""))
            elif kind == "websocket.accept":
                status, headers = 101, message.get("headers", [])
            elif kind == "websocket.send":
                text = message.get("text")
                received.append(message["bytes"] if text is None else text)
            elif kind == "websocket.close":
                status, code = status or 403, message.get("code", 1000)
        if not (self._opened and status == 101) and not any(map(_ends, self._got)):
            raise AssertionError("the application returned before its response was complete")
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        return ASGIResponse(status, fields, b"".join(chunks), scope, received, code)


class _Checked:
    """A ``send`` that checks the order and the content of messages."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._websocket = scope["type"] == "websocket"
        self._extensions: Mapping[str, object] = scope.get("extensions") or {}
        self._send = send
        self._state = "new"
        self._trailers = False

    async def send(self, message: Message) -> None:
        kind: str = message["type"]
        _require(self._state != "ended", f"{kind} after the end of the response")
        base = kind.removeprefix("websocket.")
        if self._websocket and kind.startswith("websocket.") and not base.startswith("http."):
            self._check_socket(base, message)
        else:
            _require(base.startswith("http.response."), f"unknown message {kind}")
            _require(self._websocket == (base != kind), f"{kind} in a scope of another type")
            _require(not self._websocket or _DENIAL in self._extensions, f"{kind} without its extension")
            self._check_response(base.removeprefix("http.response."), message)
        await self._send(message)

    def _check_response(self, kind: str, message: Message) -> None:
        if kind == "start":
            _require(self._state == "new", "the response was started twice")
            _require(
                isinstance(message["status"], int) and 100 <= message["status"] <= 599, "no valid status"
            )
            _check_headers(message)
            self._state, self._trailers = "started", message.get("trailers", False)
        elif kind == "body":
            _require(self._state == "started", "a body before the start of the response")
            _require(isinstance(message.get("body", b""), bytes), "a body that is not bytes")
            if not message.get("more_body", False):
                self._state = "trailers" if self._trailers else "ended"
        elif kind == "trailers":
            _require(
                self._state == "trailers", "trailers that were not announced, or before the end of the body"
            )
            self._state = "trailers" if message.get("more_trailers", False) else "ended"
        else:
            _require(
                f"http.response.{kind}" in self._extensions, f"http.response.{kind} without its extension"
            )
            if kind == "pathsend":
                self._state = "ended"

    def _check_socket(self, kind: str, message: Message) -> None:
        if kind == "accept":
            _require(self._state == "new", "the WebSocket was accepted twice")
            _check_headers(message)
            self._state = "open"
        elif kind == "send":
            _require(self._state == "open", "data on a WebSocket that is not open")
            given = [name for name in ("bytes", "text") if message.get(name) is not None]
            _require(len(given) == 1, "data must be either bytes or text")
        else:
            _require(kind == "close", f"unknown message websocket.{kind}")
            _require(self._state in ("new", "open"), "the WebSocket was closed during its denial")
            self._state = "ended"


def _check_headers(message: Message) -> None:
    headers: Any = message.get("headers", ())
    if iter(headers) is headers:
        return  # may only be read once
    for name, value in headers:
        _require(isinstance(name, bytes) and isinstance(value, bytes), f"header {name!r} is not bytes")
        _require(name == name.lower(), f"header {name!r} is not in lower case")


def _ends(message: Message) -> bool:
    kind: str = message["type"]
    if kind.endswith("http.response.body"):
        return not message.get("more_body", False)
    return kind in ("http.response.pathsend", "websocket.close")


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - an assertion
    if not condition:
        raise AssertionError(message)
