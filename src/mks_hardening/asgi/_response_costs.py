"""ASGI responses at the end of which the costs of their requests are corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.request_hits import costs_of_request, hits_of_request
from mks_hardening._core.web.asgi_scope import is_request
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening.asgi._messages import HEADS, raw_headers

if TYPE_CHECKING:
    from typing import Any

    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send

__all__ = ["ResponseCostsMiddleware", "ResponseEnd"]

_SWITCHING_PROTOCOLS: Final = 101
_CLOSED_BEFORE_ACCEPT: Final = 403  # the servers' response to a WebSocket that the application closes at once
_BODIES: Final = frozenset(
    {"http.response.body", "websocket.http.response.body", "http.response.zerocopysend"}
)
_FILE: Final = "http.response.pathsend"


class ResponseEnd:
    """Observer of the messages of one response; corrects the costs of its request before the last one is sent.

    The client then cannot send its next request before they are counted. WebSockets count as soon as they are
    accepted or denied.
    """

    __slots__ = ("_bytes", "_declared", "_scope", "_status")

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope
        self._status: int | None = None
        self._bytes = 0
        self._declared = 0

    async def before(self, message: Message) -> None:
        """Note a message before it is sent."""
        if (
            costs_of_request(self._scope) is None
        ):  # as for most requests; limits count before the response begins
            return
        kind = message["type"]
        if kind in HEADS:
            self._status = message["status"]
            self._declared = _content_length(message)
        elif kind in _BODIES:
            self._bytes += self._length(message)
            if not message.get("more_body", False):
                await self.finalize(complete=True)
        elif kind == _FILE:
            self._bytes = self._declared
            await self.finalize(complete=True)
        elif self._status is None and kind in ("websocket.accept", "websocket.close"):
            self._status = _SWITCHING_PROTOCOLS if kind == "websocket.accept" else _CLOSED_BEFORE_ACCEPT
            await self.finalize(complete=True)

    async def finalize(self, *, complete: bool) -> None:
        """Correct the costs; ``complete`` is false if the client left or the application raised an error."""
        costs = costs_of_request(self._scope)
        if costs is not None:
            costs.status, costs.body_bytes = self._status, self._bytes
            await costs.afinalize(complete=complete)

    def _length(self, message: Message) -> int:
        if message["type"] == "http.response.zerocopysend":
            count: int | None = message.get("count")
            return self._declared if count is None else count
        return len(message.get("body", b""))


class ResponseCostsMiddleware:
    """Corrects the costs of requests that the views of an application count."""

    __slots__ = ("_app",)

    def __init__(self, app: ASGIApplication) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if not is_request(scope):
            await self._app(scope, receive, send)
            return
        inner = private_scope(scope)
        hits_of_request(inner)  # so that copies of the scope share it
        end = ResponseEnd(inner)

        async def send_with_costs(message: Message) -> None:
            await end.before(message)
            await send(message)

        try:
            await self._app(inner, receive, send_with_costs)
        finally:
            await end.finalize(complete=False)


def _content_length(message: Message) -> int:
    for name, value in raw_headers(message):
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0
