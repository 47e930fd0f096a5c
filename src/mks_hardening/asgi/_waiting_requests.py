"""Requests that wait for a slot, in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from mks_hardening._edge.concurrency.concurrency_rule import RequestSlot

__all__ = ["WaitingRequests"]


class WaitingRequests:
    """Lines of requests, one for each limit and key; the first of a line gets the next slot.

    Args:
        most: maximum number of requests that wait at the same time, in all lines.
        wait: maximum seconds that a request waits.
    """

    __slots__ = ("_lines", "_most", "_number", "_wait")

    def __init__(self, *, most: int, wait: float) -> None:
        self._most = most
        self._wait = wait
        self._number = 0
        self._lines: dict[tuple[str, str], deque[asyncio.Event]] = {}

    async def acquire(
        self, place: tuple[str, str], acquire: Callable[[], Awaitable[RequestSlot]]
    ) -> RequestSlot | None:
        """Acquire a slot, behind the requests that already wait for one of this place.

        Args:
            place: limit and key.
            acquire: tries to acquire a slot, without waiting.

        Returns:
            The slot, which may be refused; ``None`` if too many requests are waiting.
        """
        slot = None
        if place not in self._lines:
            slot = await acquire()
            if slot:
                return slot
        if self._number >= self._most:
            return slot
        return await self._wait_in_line(place, acquire)

    async def _wait_in_line(
        self, place: tuple[str, str], acquire: Callable[[], Awaitable[RequestSlot]]
    ) -> RequestSlot:
        import asyncio

        turn = asyncio.Event()
        line = self._lines.setdefault(place, deque())
        line.append(turn)
        self._number += 1
        try:
            async with asyncio.timeout(self._wait):
                while True:
                    await turn.wait()
                    turn.clear()
                    slot = await acquire()
                    if slot:
                        return slot
        except TimeoutError:
            # Where several processes share the slots, another one may have released some.
            return await acquire()
        finally:
            self._number -= 1
            line.remove(turn)
            if not line:
                del self._lines[place]
            self.wake(place)  # several slots may have been released since the last turn

    def wake(self, place: tuple[str, str]) -> None:
        """Give the first request that waits for a place its turn, after a slot has been released."""
        line = self._lines.get(place)
        if line:
            line[0].set()
