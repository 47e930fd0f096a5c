"""Time that an event loop spent elsewhere while a call was waiting: not the server's fault.

A handler that computes for 250 ms blocks everything on its loop. A response that was in the socket all the time
looks late, and a healthy server would be classed as slow. While calls wait, a timer on the loop therefore measures
how late the loop runs its callbacks; deadlines are extended by that time, and budgets are not charged for it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self
from weakref import WeakKeyDictionary

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["LoopAwareTimeout", "LoopTime", "loop_time"]

_STEP: Final = 0.005
_GRAIN: Final = 0.002
"""Seconds; lateness below this is timer resolution (uvloop counts whole milliseconds)."""


class LoopTime:
    """Counter of the seconds that one event loop was busy elsewhere while calls were waiting on it."""

    __slots__ = ("__weakref__", "_due", "_lost", "_ticking", "_waiting")

    def __init__(self) -> None:
        self._lost = 0.0
        self._due = 0.0
        self._waiting = 0
        self._ticking = False

    def enter(self, _seconds: float) -> None:
        """Record that a call starts to wait."""
        self._waiting += 1
        if not self._ticking:
            self._ticking = True
            self._schedule()

    def leave(self) -> None:
        """Record that a call stops waiting; without another waiting call, the next tick is the last one."""
        self._waiting -= 1

    def lost(self) -> float:
        """Return the seconds lost so far; monotonic. A call uses the difference between two readings."""
        return self._lost + self._late()

    def _schedule(self) -> None:
        self._due = SYSTEM_CLOCK.monotonic() + _STEP
        asyncio.get_running_loop().call_later(_STEP, self._tick)

    def _tick(self) -> None:
        self._lost += self._late()
        if self._waiting:
            self._schedule()
        else:
            self._ticking = False

    def _late(self) -> float:
        late = SYSTEM_CLOCK.monotonic() - self._due if self._ticking else 0.0
        return late if late > _GRAIN else 0.0


_by_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTime]] = WeakKeyDictionary()


def loop_time() -> LoopTime:
    """Return the counter of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _by_loop.get(loop)
    if found is None:
        found = _by_loop[loop] = LoopTime()
    return found


class LoopAwareTimeout:
    """``asyncio.timeout`` that excludes time in which the loop was busy: the block may wait ``allowed`` seconds.

    Raises:
        TimeoutError: at the end of the block, if it waited longer.
    """

    __slots__ = ("_allowed", "_began", "_lost", "_scope", "_time", "_timer")

    def __init__(self, time: LoopTime, allowed: float) -> None:
        self._time = time
        self._allowed = allowed
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        self._began = SYSTEM_CLOCK.monotonic()
        self._lost = self._time.lost()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._allowed), self._due)
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def _due(self) -> None:
        served = SYSTEM_CLOCK.monotonic() - self._began - (self._time.lost() - self._lost)
        left = self._allowed - served
        loop = asyncio.get_running_loop()
        if left > 0:
            self._timer = loop.call_later(left, self._due)
        else:
            self._scope.reschedule(loop.time())
