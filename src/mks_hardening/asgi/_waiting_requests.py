"""Requests that wait for a slot, in order, and notice that their client has left."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mks_hardening._edge.concurrency.waiting_lines import WaitingLines

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from mks_hardening._core.web.asgi_types import Message, Receive
    from mks_hardening._edge.concurrency.concurrency_rule import RequestSlot
    from mks_hardening._edge.concurrency.waiting_lines import Place

__all__ = ["WaitingClient", "WaitingRequests"]

_TRY_AGAIN: Final = 0.05
"""Seconds after which the first of a line tries again: others, such as other processes, release slots too."""
_MOST_AHEAD: Final = 2  # the request without a body, and the disconnect


class WaitingRequests:
    """Lets requests wait for slots, each line in order.

    Args:
        most: maximum number of requests that wait for the slots of one place.
        wait: maximum seconds that a request waits for all its slots together.
    """

    __slots__ = ("_lines", "_wait")

    def __init__(self, *, most: int, wait: float) -> None:
        self._lines: WaitingLines[asyncio.Event] = WaitingLines(most=most)
        self._wait = wait

    async def acquire(
        self, place: Place, acquire: Callable[[], Awaitable[RequestSlot]], client: WaitingClient
    ) -> RequestSlot | None:
        """Acquire a slot, behind the requests that already wait for one of this place.

        Args:
            place: limit and key.
            acquire: tries to acquire a slot, without waiting.
            client: the client of the request; ``has_left`` is true if it has left.

        Returns:
            The slot, which may be refused; ``None`` if too many requests are waiting, or the client has left.
        """
        slot = None
        if not self._lines.has_line(place):
            slot = await acquire()
            if slot:
                return slot
        import asyncio

        turn = asyncio.Event()
        if not self._lines.join(place, turn):
            return slot
        try:
            async with asyncio.timeout_at(client.begin_to_wait(self._wait, turn)):
                while not client.has_left:
                    is_first = self._lines.first(place) is turn
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_TRY_AGAIN if is_first else None):
                            await turn.wait()
                    turn.clear()
                    slot = await acquire() if self._lines.first(place) is turn else None
                    if slot:
                        break
        except TimeoutError:
            slot = await acquire()
        finally:
            self._lines.leave(place, turn)
            self.wake(place)  # several slots may have been released since the last turn
        return slot

    def wake(self, place: Place) -> None:
        """Give the first request that waits for a place its turn, after a slot has been released."""
        turn = self._lines.first(place)
        if turn is not None:
            turn.set()


class WaitingClient:
    """The client of a request that waits: its messages are read ahead, to notice that it has left.

    No message is lost: the application receives those that were read. At most one part of a body is read, so that
    clients that wait do not fill the memory; a client that is still sending is not watched.

    Args:
        receive: callable of the server.

    Attributes:
        has_left: whether the server has reported a disconnect while the request waited.
    """

    __slots__ = ("_end", "_error", "_is_admitted", "_kept", "_receive", "_task", "_turn", "has_left")  # fmt: skip

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self.has_left = False

    def begin_to_wait(self, wait: float, turn: asyncio.Event) -> float:
        """Watch the client; return until when it waits, on the clock of the event loop.

        Args:
            wait: maximum seconds that a request waits, for all its slots together.
            turn: set if the client leaves.
        """
        import asyncio

        self._turn = turn
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._end = loop.time() + wait
            self._kept: deque[Message] = deque()
            self._error: Exception | None = None
            self._is_admitted = False
            self._task = loop.create_task(self._read())
        return self._end

    async def _read(self) -> None:
        try:
            for _ in range(_MOST_AHEAD):
                message = await self._receive()
                self._kept.append(message)
                if message["type"] in ("http.disconnect", "websocket.disconnect"):
                    self.has_left = not self._is_admitted
                    self._turn.set()
                if self._is_admitted or not _is_whole_request(message):
                    return
        except Exception as error:  # noqa: BLE001 - raised where the application receives
            self._error = error

    def admit(self) -> Receive:
        """Return the callable from which the application receives, once the request has its slots."""
        if self._task is None:
            return self._receive
        self._is_admitted = True
        if self._kept and self._kept[-1]["type"] == "http.request" and _is_whole_request(self._kept[-1]):
            # Only a disconnect can follow, and the server reports it again. With this call left pending, the end of
            # the response would look like a client that has left: Hypercorn then reports a disconnect.
            self._task.cancel()
        return self._receive_kept

    async def _receive_kept(self) -> Message:
        import asyncio

        if not self._kept and self._task is not None and not self._task.done():
            await asyncio.wait({self._task})  # a cancellation of the application does not cancel it
        if self._kept:
            return self._kept.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return await self._receive()

    def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()


def _is_whole_request(message: Message) -> bool:
    """Return whether the next message is a disconnect, or belongs to a WebSocket that is not accepted yet."""
    if message["type"] == "http.request":
        return not message.get("more_body", False)
    return bool(message["type"] == "websocket.connect")
