"""At most one computation of a key at a time in this process; everybody else waits for its answer."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.forked import renew_in_child
from mks_hardening._core.sentinel import MISSING

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Flight", "Flights"]

# Keys being computed by this very call chain: a recursive function must not wait for itself.
_computing: Final[ContextVar[frozenset[tuple[int, str]]]] = ContextVar(
    "mks_hardening.cache.computing", default=frozenset()
)


class Flight:
    """One computation; as an effect, the wait for its outcome."""

    __slots__ = ("_future", "key", "tags", "wait_limit")

    def __init__(self, key: str, tags: Collection[str], wait_limit: float) -> None:
        from concurrent.futures import Future

        self.key: str = key
        self.tags: frozenset[str] = frozenset(tags)
        self.wait_limit: float = wait_limit
        self._future: Future[Any] = Future()

    def land(self, value: Any) -> None:
        """Give everybody the value; ``MISSING`` means: look for yourselves."""
        self._future.set_result(value)

    def crash(self, error: BaseException) -> None:
        """Give everybody the error."""
        self._future.set_exception(error)

    def run(self) -> Any:
        """Wait for the value; ``MISSING`` when it takes too long."""
        try:
            return self._future.result(self.wait_limit)
        except TimeoutError:
            if self._future.done():
                raise
            return MISSING

    async def arun(self) -> Any:
        """Wait for the value; ``MISSING`` when it takes too long."""
        import asyncio

        waiter = asyncio.get_running_loop().create_future()

        def wake(_future: Future[Any]) -> None:
            waiter.get_loop().call_soon_threadsafe(arrive)

        def arrive() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._future.add_done_callback(wake)
        try:
            await asyncio.wait_for(waiter, self.wait_limit)
        except TimeoutError:
            return MISSING
        return self._future.result(0)


class Flights:
    """The computations under way in one cache."""

    __slots__ = ("__weakref__", "_lock", "_under_way", "_wait_limit")

    def __init__(self, *, wait_limit: float) -> None:
        self._wait_limit = wait_limit
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Forget everything, lock included: what a forked child inherits belongs to its parent's threads."""
        self._lock = Lock()
        self._under_way: dict[str, Flight] = {}

    def join(self, key: str, tags: Collection[str]) -> tuple[Flight, bool]:
        """The computation of ``key``, and whether it is the caller who has to do it."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            flight = self._under_way[key] = Flight(key, tags, self._wait_limit)
            return flight, True

    def leave(self, flight: Flight) -> None:
        """The computation is over."""
        with self._lock:
            if self._under_way.get(flight.key) is flight:
                del self._under_way[flight.key]

    def void(
        self, *, keys: Collection[str] = (), tags: Collection[str] = (), everything: bool = False
    ) -> None:
        """Callers from now on must not get an answer whose computation began before this."""
        with self._lock:
            for key, flight in list(self._under_way.items()):
                if everything or key in keys or not flight.tags.isdisjoint(tags):
                    del self._under_way[key]

    def is_own(self, key: str) -> bool:
        """Whether the running call chain is itself computing ``key``."""
        return (id(self), key) in _computing.get()

    @contextmanager
    def computing(self, key: str) -> Generator[None]:
        """Mark the running call chain as computing ``key``."""
        token = _computing.set(_computing.get() | {(id(self), key)})
        try:
            yield
        finally:
            _computing.reset(token)
