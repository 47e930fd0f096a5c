"""At most one request at a time makes the response of a key in this process; the others wait for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import RLock
from typing import Final
from weakref import WeakValueDictionary

from mks_hardening._core.operations import Op
from mks_hardening._core.process.after_fork import register_after_fork

__all__ = ["RequestFlight", "RequestFlights"]

_MOST_WAITING: Final = 1000
_MOST_SKIPPED: Final = 4096
_LONGEST: Final = 30.0  # seconds


class RequestFlight:
    """A response that is being made by one request.

    Attributes:
        key: key of the response.
        since: when the request began, on the monotonic clock.
    """

    __slots__ = ("__weakref__", "_future", "key", "since")

    def __init__(self, key: str, since: float) -> None:
        self.key = key
        self.since = since
        self._future: Future[None] = Future()

    def end(self) -> None:
        """Wake all requests that wait for the response."""
        if not self._future.done():
            self._future.set_result(None)

    def wait(self, seconds: float) -> Op[bool]:
        """Wait until the response is stored, or it is known that it will not be; return whether it is known."""
        ended: bool = yield _Wait(self._future, seconds)
        return ended


class RequestFlights:
    """The responses that are being made in this process.

    Args:
        wait: seconds after which a response takes too long to be waited for; 0: no request waits.
        monotonic: the monotonic clock.
    """

    __slots__ = ("__weakref__", "_flights", "_lock", "_monotonic", "_skipped", "_waiting", "wait")

    def __init__(self, *, wait: float, monotonic: Callable[[], float]) -> None:
        self.wait = wait
        self._monotonic = monotonic
        # Keys whose last response could not be stored: waiting for the next one would be in vain.
        self._skipped: dict[str, None] = {}
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start empty in a forked child: the responses are made by the parent's threads."""
        self._lock = RLock()
        self._waiting = 0
        # Weak: a server may neither read nor close a body.
        self._flights: WeakValueDictionary[str, RequestFlight] = WeakValueDictionary()

    def join(self, key: str) -> tuple[RequestFlight, bool]:
        """Return the flight of a key, and whether the caller has to make the response."""
        now = self._monotonic()
        with self._lock:
            flight = self._flights.get(key)
            # The lease of a longer one has ended as well.
            if flight is not None and now - flight.since < _LONGEST:
                return flight, False
            flight = self._flights[key] = RequestFlight(key, now)
            return flight, True

    def wait_for(self, flight: RequestFlight) -> Op[bool]:
        """Wait for a flight; return whether it has ended, False also if nothing was waited for."""
        left = flight.since + self.wait - self._monotonic()
        if left <= 0 or flight.key in self._skipped or self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            return (yield from flight.wait(left))
        finally:
            self._waiting -= 1

    def leave(self, flight: RequestFlight, *, worth_waiting: bool | None = None) -> None:
        """End a flight.

        Args:
            flight: the flight.
            worth_waiting: whether the response was stored, so that the next requests should wait again; None if
                that is unknown.
        """
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
        if worth_waiting:
            self._skipped.pop(flight.key, None)
        elif worth_waiting is False:
            self._skip(flight.key)
        flight.end()

    def _skip(self, key: str) -> None:
        if len(self._skipped) >= _MOST_SKIPPED:
            self._skipped.clear()
        self._skipped[key] = None


class _Wait:
    """The effect of waiting for a future; returns whether it is done in time."""

    __slots__ = ("_future", "_seconds")

    def __init__(self, future: Future[None], seconds: float) -> None:
        self._future = future
        self._seconds = seconds

    def run(self) -> bool:
        """Wait in this thread."""
        try:
            self._future.result(self._seconds)
        except TimeoutError:
            return self._future.done()
        return True

    async def arun(self) -> bool:
        """Wait on the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def arrive() -> None:
            if not arrived.done():
                arrived.set_result(None)

        self._future.add_done_callback(_calling(loop.call_soon_threadsafe, arrive))
        try:
            await asyncio.wait_for(arrived, self._seconds)
        except TimeoutError:
            return self._future.done()
        return True


def _calling(
    schedule: Callable[[Callable[[], None]], object], function: Callable[[], None]
) -> Callable[[object], None]:
    def wake(_future: object) -> None:
        try:
            schedule(function)
        except RuntimeError:  # the event loop is closed by now
            return

    return wake
