"""At most one computation of a key at a time in this process; all other callers wait for its result."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import Enum
from math import inf
from threading import RLock
from typing import TYPE_CHECKING, Final

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.cache._immutable import Thaw, freeze, thawed
from mks_hardening.exceptions import EncodeError

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["COMPUTE_WAIT", "Flight", "FlightWait", "Flights", "NoResult"]

COMPUTE_WAIT: Final = 3.0
"""Default number of seconds that a caller waits for the computation of another."""

# Keys being computed by the current call chain: a recursive function must not wait for itself.
_computing: Final[ContextVar[frozenset[tuple[int, str]]]] = ContextVar(
    "mks_hardening.cache.computing", default=frozenset()
)


class NoResult(Enum):
    """Why a waiting caller gets no value."""

    AGAIN = "it was invalidated or given up in the meantime: look again"
    ALONE = "it cannot be shared: compute for yourself"
    LATE = "it takes too long"


class Flight:
    """One computation in this process.

    Attributes:
        since: monotonic time from which the waiting callers measure their waiting time.
        successor: the computation that was started because this one took too long.
        relieved: the computation that took too long, if this one was started because of it.
        proved: monotonic time at which the value was valid in the store: another process may have invalidated it
            before those came who began later. Infinite if no store can tell.
    """

    __slots__ = ("_future", "key", "predecessor", "proved", "since", "successor", "tags", "waiting")

    def __init__(self, key: str, tags: Collection[str]) -> None:
        from concurrent.futures import Future

        self.key: str = key
        self.tags: frozenset[str] = frozenset(tags)
        self.waiting = 0
        self.since = inf
        self.proved = -inf
        self.successor: Flight | None = None
        self.predecessor: Flight | None = None
        self._future: Future[tuple[object, Thaw | None] | NoResult] = Future()

    def land(self, value: object) -> None:
        """Give all waiting callers the value, each a copy of its own.

        The first value of a computation and its successors is the value of all of them.
        """
        outcome: tuple[object, Thaw | None] | NoResult = NoResult.AGAIN
        # Usually no caller waits, and encoding the value for nobody would cost as much as storing it.
        if self.is_awaited():
            try:
                outcome = freeze(value)
            except EncodeError:
                outcome = NoResult.ALONE
        for flight in [*self._chain()]:
            flight.proved = self.proved
            flight._set(outcome)  # noqa: SLF001 - of the same class

    def is_awaited(self) -> bool:
        """Return whether a caller waits for this computation, or for one that it replaces or that replaces it."""
        return any(flight.waiting for flight in self._chain())

    def _chain(self) -> Iterator[Flight]:
        flight: Flight = self
        while flight.predecessor is not None:
            flight = flight.predecessor
        yield flight
        while flight.successor is not None:
            flight = flight.successor
            yield flight

    def end(self, why: NoResult) -> None:
        """Tell all waiting callers that they get no value."""
        self._set(why)

    def crash(self, error: BaseException) -> None:
        """Raise the error in all waiting callers."""
        # Its predecessor may have set the value of both.
        if not self._future.done():
            self._future.set_exception(error)

    def _set(self, outcome: tuple[object, Thaw | None] | NoResult) -> None:
        if not self._future.done():
            self._future.set_result(outcome)

    @property
    def future(self) -> Future[tuple[object, Thaw | None] | NoResult]:
        """The future that the waiting callers wait for."""
        return self._future


class FlightWait:
    """The effect of waiting for a flight; returns its value or a ``NoResult``."""

    __slots__ = ("_flight", "_seconds")

    def __init__(self, flight: Flight, seconds: float) -> None:
        self._flight = flight
        self._seconds = seconds

    def run(self) -> object:
        """Wait in this thread."""
        future = self._flight.future
        try:
            return _answer(future.result(self._seconds))
        except TimeoutError:
            # The computation's own error, or a value that has just arrived.
            return _answer(future.result(0)) if future.done() else NoResult.LATE

    async def arun(self) -> object:
        """Wait on the running event loop."""
        import asyncio

        future = self._flight.future
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def wake(_future: object) -> None:
            # The future may be set in a thread or another event loop, after this one is closed.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(arrive)

        def arrive() -> None:
            if not arrived.done():
                arrived.set_result(None)

        future.add_done_callback(wake)
        try:
            await asyncio.wait_for(arrived, self._seconds)
        except TimeoutError:
            return NoResult.LATE
        return _answer(future.result(0))


def _answer(outcome: tuple[object, Thaw | None] | NoResult) -> object:
    return outcome if isinstance(outcome, NoResult) else thawed(*outcome)


class Flights:
    """The running computations of one cache."""

    __slots__ = ("__weakref__", "_lock", "_under_way")

    def __init__(self) -> None:
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start empty, with a new lock, in a forked child: the computations belong to the parent's threads."""
        # Reentrant: the garbage collector may run a destructor here that uses the same cache.
        self._lock = RLock()
        self._under_way: dict[str, Flight] = {}

    def join(self, key: str, tags: Collection[str]) -> tuple[Flight, bool]:
        """Return the computation of ``key``, and whether the caller has to perform it."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                flight.waiting += 1
                return flight, False
            flight = self._under_way[key] = Flight(key, tags)
            return flight, True

    def start_successor(self, late: Flight) -> tuple[Flight, bool]:
        """Return the computation that replaces a late one, and whether the caller has to perform it."""
        with self._lock:
            # It may have ended already, while this caller was timing out.
            if late.successor is not None:
                late.successor.waiting += 1
                return late.successor, False
            flight, ours = self.join(late.key, late.tags)
            if flight is late:
                flight.waiting -= 1
                flight = self._under_way[late.key] = late.successor = Flight(late.key, late.tags)
                flight.predecessor = late
                ours = True
            return flight, ours

    def leave(self, flight: Flight) -> None:
        """Remove a computation that has ended, so that nobody can join it."""
        with self._lock:
            if self._under_way.get(flight.key) is flight:
                del self._under_way[flight.key]

    def void(
        self, *, keys: Collection[str] = (), tags: Collection[str] = (), everything: bool = False
    ) -> None:
        """Detach running computations: later callers must not get a value whose computation began before this."""
        with self._lock:
            for key, flight in list(self._under_way.items()):
                if everything or key in keys or not flight.tags.isdisjoint(tags):
                    del self._under_way[key]

    def is_computing(self) -> bool:
        """Return whether the current call chain is computing a value."""
        return bool(_computing.get())

    def is_own(self, key: str) -> bool:
        """Return whether the current call chain is computing ``key``."""
        return (id(self), key) in _computing.get()

    @contextmanager
    def computing(self, key: str) -> Generator[None]:
        """Mark the current call chain as computing ``key``."""
        # A context variable: it follows the call chain into coroutines, and does not leak into other tasks.
        token = _computing.set(_computing.get() | {(id(self), key)})
        try:
            yield
        finally:
            _computing.reset(token)
