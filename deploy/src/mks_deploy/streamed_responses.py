"""Responses that an application sends in parts: nginx passes each part on at once.

A response of unknown length is one that the application makes while it is sent: events, progress, the words of a
model. nginx would collect it until it ends. One with a ``Content-Length`` is collected, so that a slow client does
not occupy a thread of the application. An ``X-Accel-Buffering`` of the application decides instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["streamed_asgi", "streamed_wsgi"]

_DECIDED = frozenset({"content-length", "x-accel-buffering"})
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_ASGIApplication = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def streamed_wsgi(app: WSGIApplication) -> WSGIApplication:
    """Return a WSGI application whose responses of unknown length are not collected by nginx."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            if _DECIDED.isdisjoint(name.lower() for name, _ in headers):
                headers = [*headers, ("X-Accel-Buffering", "no")]
            return start_response(status, headers, *error)

        return app(environ, start)

    return application


def streamed_asgi(app: _ASGIApplication) -> _ASGIApplication:
    """Return an ASGI application whose responses of unknown length are not collected by nginx."""

    async def application(scope: _Message, receive: _Receive, send: _Send) -> None:
        async def send_on(message: _Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ())]
                if _DECIDED.isdisjoint(name.lower().decode("latin-1") for name, _ in headers):
                    message = {**message, "headers": [*headers, (b"x-accel-buffering", b"no")]}
            await send(message)

        await app(scope, receive, send_on if scope["type"] == "http" else send)

    return application
