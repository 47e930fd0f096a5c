"""Reading a request body that the application reads again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import Message, Receive

__all__ = ["read_body"]


async def read_body(receive: Receive, *, limit: int) -> tuple[bytes | None, Receive]:
    """Read the body and return it with a ``receive`` that delivers the same messages again.

    Args:
        receive: callable of the server.
        limit: maximum number of bytes to read.

    Returns:
        The body, or ``None`` if it is longer than ``limit`` or the client left before its end; and the ``receive``
        for the application.
    """
    messages: list[Message] = []
    chunks: list[bytes] = []
    left, complete = limit, False
    while left >= 0:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            break
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        left -= len(chunk)
        if not message.get("more_body", False):
            complete = left >= 0
            break
    messages.reverse()

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return b"".join(chunks) if complete else None, replay
