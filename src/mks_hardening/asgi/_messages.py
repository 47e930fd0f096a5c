"""Responses and messages of ASGI applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mks_hardening._core.web.asgi_types import Message, RawHeaders, Scope, Send
    from mks_hardening._edge.refusal_response import FixedResponse

__all__ = [
    "HEADS",
    "POLICY_VIOLATION",
    "decoded",
    "encoded",
    "raw_headers",
    "send_response",
    "with_headers",
    "with_readable_headers",
]

HEADS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
"""Types of the messages that begin a response; the second one denies a WebSocket."""
POLICY_VIOLATION: Final = 1008
"""Code with which a refused WebSocket is closed (RFC 6455, 7.4.1)."""
_RAW_NAMES: Final[Memo[str, bytes]] = Memo(lambda name: name.lower().encode("latin-1"))


def raw_headers(message: Message) -> RawHeaders:
    """Return the header fields of a message in a new list; they are optional and may be any iterable of pairs."""
    return list(message.get("headers") or ())


def with_headers(message: Message, headers: RawHeaders) -> Message:
    """Return a copy of a message with other header fields; all its other keys stay."""
    return {**message, "headers": headers}


def with_readable_headers(message: Message) -> Message:
    """Return the message, or a copy if its header fields are an iterator, which can be read only once."""
    if isinstance(message.get("headers"), (list, tuple, type(None))):
        return message
    return with_headers(message, raw_headers(message))


def decoded(headers: RawHeaders) -> list[tuple[str, str]]:
    """Return header fields as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def encoded(headers: list[tuple[str, str]]) -> RawHeaders:
    """Return header fields as bytes; names in lower case, as ASGI requires."""
    return [
        # Without arguments, encoding takes a third of the time.
        (_RAW_NAMES[name], value.encode() if value.isascii() else value.encode("latin-1", "replace"))
        for name, value in headers
    ]


async def send_response(
    scope: Scope,
    send: Send,
    response: FixedResponse,
    *,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Send a response in place of the application's.

    A WebSocket gets a denial response if the server can send one (extension ``websocket.http.response``), otherwise
    it is closed with 1008.

    Args:
        scope: scope of the request.
        send: callable of the server.
        response: the response.
        before_end: called before the last byte, after which some servers close the connection.
    """
    prefix = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": response.status, "headers": list(response.raw_headers)})
    body = b"" if scope.get("method") == "HEAD" else response.body
    if before_end is not None:
        await send({"type": f"{prefix}.body", "body": body[:-1], "more_body": True})
        await before_end()
        body = body[-1:]
    await send({"type": f"{prefix}.body", "body": body})
