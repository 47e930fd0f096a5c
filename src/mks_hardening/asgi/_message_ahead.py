"""Asking the server for a message before the application does, without waiting."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import Message, Receive

__all__ = ["MessageAhead"]


class MessageAhead:
    """A call of ``receive`` that was begun, but that nobody waits for until the application asks.

    No task is created for it: ``poll`` continues the call in the running task, once the future that it waits for is
    done. Awaiting the object waits for the message.

    Args:
        receive: callable of the server.

    Attributes:
        closed: whether the call was given up.
    """

    __slots__ = ("_call", "_future", "closed")

    def __init__(self, receive: Receive) -> None:
        self._call: Any = receive().__await__()
        self._future: Any = None
        self.closed = False

    def poll(self) -> Message | None:
        """Return the message if it has arrived; ``None`` otherwise."""
        while self._future is None or self._future.done():
            try:
                self._future = next(self._call)
            except StopIteration as stop:
                message: Message = stop.value
                return message
            if not hasattr(self._future, "done"):
                if self._future is not None:  # not asyncio, which resumes coroutines by other rules
                    self.close()
                return None
        return None

    def __await__(self) -> Generator[Any, Any, Message]:
        """Wait for the message."""
        while True:
            if self._future is not None and not self._future.done():
                try:
                    yield self._future
                except BaseException:
                    self.close()
                    raise
            try:
                self._future = next(self._call)
            except StopIteration as stop:
                message: Message = stop.value
                return message
            if self._future is None:
                yield None

    def close(self) -> None:
        """Cancel the pending call, if that loses no message."""
        close = getattr(self._call, "close", None)
        if close is not None:
            close()
            self.closed = True
