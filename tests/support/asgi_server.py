"""An ASGI server for tests: records the messages of the application, and delivers those of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Message = dict[str, Any]
ALL_EXTENSIONS = {
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
    "http.response.push": {},
    "http.response.early_hint": {},
    "http.response.trailers": {},
    "http.response.debug": {},
    "websocket.http.response": {},
    "tls": {"server_cert": None},
}


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it on a new event loop."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(coroutine)


def http(path: str = "/", **keys: Any) -> Message:
    """Return the scope of an HTTP request; ``headers`` may be a mapping of strings."""
    headers = keys.pop("headers", {})
    if isinstance(headers, dict):
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers = [(b"host", b"www.example.com"), *headers]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.7", 40000),
        "server": ("10.0.0.1", 8000),
        "extensions": dict(ALL_EXTENSIONS),
        **keys,
    }


def socket(path: str = "/", **keys: Any) -> Message:
    """Return the scope of a WebSocket."""
    scope = http(path, **{"scheme": "wss", "subprotocols": [], **keys})
    del scope["method"]
    return {**scope, "type": "websocket"}


class Server:
    """One connection.

    Args:
        requests: messages that ``receive`` returns, in order; afterwards it waits for ``push`` or for ``leave``.
    """

    def __init__(self, *requests: Message) -> None:
        self.sent: list[Message] = []
        self.receives = 0
        self.on_send: Callable[[Message], object] = lambda message: None
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        for message in requests or ({"type": "http.request", "body": b"", "more_body": False},):
            self._queue.put_nowait(message)
        self._gone: Message | None = None

    def push(self, message: Message) -> None:
        """Let the application receive a message."""
        self._queue.put_nowait(message)

    async def receive(self) -> Message:
        """``receive`` of the server; a disconnect is repeated."""
        self.receives += 1
        if self._gone is None:
            message = await self._queue.get()
            if not message["type"].endswith(".disconnect"):
                return message
            self._gone = message
        return self._gone

    async def send(self, message: Message) -> None:
        """``send`` of the server."""
        assert type(message) is dict
        if "headers" in message:
            message = {**message, "headers": list(message["headers"])}
            assert all(name == name.lower() for name, _ in message["headers"]), message
        self.sent.append(message)
        answer = self.on_send(message)
        if isinstance(answer, Awaitable):
            await answer
        if message["type"] == "websocket.close":
            self.push({"type": "websocket.disconnect", "code": message.get("code", 1000)})

    async def serve(self, app: Any, scope: Message) -> list[Message]:
        """Call the application and return what it sent."""
        await app(scope, self.receive, self.send)
        return self.sent

    @property
    def types(self) -> list[str]:
        """The types of the messages that were sent."""
        return [message["type"] for message in self.sent]

    def header(self, name: str) -> str | None:
        """The value of a header field of the head that was sent."""
        for message in self.sent:
            for field, value in message.get("headers", ()):
                if field == name.lower().encode():
                    return str(value.decode("latin-1"))
        return None


def call(app: Any, scope: Message, *requests: Message) -> Server:
    """Run one connection from beginning to end."""

    async def play() -> Server:
        server = Server(*requests)
        await server.serve(app, scope)
        return server

    answered: Server = run(play())
    return answered


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """A minimal application, over HTTP and WebSockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})
