"""The one algorithm of "get it or compute it": fresh, stale or computed, by one caller of all processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from mks_hardening._core.operations import Call, Op, Spawn
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._entry import CacheEntry, ComputeLease
from mks_hardening.cache._entry_options import check_key, jittered
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.compute._singleflight import Flight, Flights, FlightWait, NoResult
from mks_hardening.cache.compute._uncacheable import UncacheableValues
from mks_hardening.exceptions import BackendUnavailableError, EncodeError
from mks_hardening.protocols import Clock

__all__ = ["Computation", "ComputeOptions"]

T = TypeVar("T")
U = TypeVar("U")
_logger = logging.getLogger("mks_hardening.cache")


class ComputeOptions(NamedTuple):
    """How a computed value is to be kept and waited for.

    Attributes:
        lifetime: seconds fresh.
        grace: further seconds stale.
        tags: of the entry.
        wait: seconds after which a computation takes too long for those who wait.
    """

    lifetime: float
    grace: float
    tags: tuple[str, ...]
    wait: float


class Computation:
    """Gets values of one cache, and computes those that are not there.

    Args:
        store: the entries.
        counters: what is told of it.
        jitter: share of each ttl that is taken off at random.
        clock: source of time.
    """

    def __init__(self, store: CacheStore, counters: CacheCounters, *, jitter: float, clock: Clock) -> None:
        self._store = store
        self._counters = counters
        self._jitter = jitter
        self._clock = clock
        self._unkeepable = UncacheableValues(counters)
        self.flights = Flights()

    def entry(self, key: str, tags: tuple[str, ...] = ()) -> Op[CacheEntry | None]:
        """The entry, fresh or stale; None when there is none or the backend is away."""
        try:
            (entry,) = yield from self._store.load((key,), tags)
        except BackendUnavailableError as error:
            self._counters.failed(error)
            return None
        return entry

    def is_fresh(self, entry: CacheEntry | None) -> bool:
        """Whether there is an entry whose time is not over."""
        return entry is not None and self._clock.time() < entry.fresh_until

    def guarded(self, operation: Op[T], *, otherwise: U) -> Op[T | U]:
        """The operation, or ``otherwise`` when the backend is away."""
        try:
            return (yield from operation)
        except BackendUnavailableError as error:
            self._counters.failed(error)
            return otherwise

    def get_or_compute(self, key: str, compute: Callable[[], object], terms: ComputeOptions) -> Op[object]:
        """The value of ``key``, from wherever it is to be had first."""
        check_key(key)
        entry = yield from self.entry(key, terms.tags)
        if entry is not None and self.is_fresh(entry):
            self._counters.read(found=True)
            return entry.value
        if entry is not None and terms.grace:
            self._counters.stale()
            yield from self._refresh_beside(key, compute, terms)
            return entry.value
        self._counters.read(found=False)
        # A recursive function would wait for itself until `compute_wait` is over.
        if not terms.lifetime or self.flights.is_own(key):
            return (yield Call(compute))
        return (yield from self._compute_or_wait(key, compute, terms))

    def _compute_or_wait(self, key: str, compute: Callable[[], object], terms: ComputeOptions) -> Op[object]:
        """Compute for all who ask, or have what another caller computes; but never wait for ever.

        When a computation takes too long, one of those who wait computes as well, and the first value is for all:
        were it everybody, a slow computation would be done by all at once. Two functions that call each other from
        two threads wait for each other: who computes something itself meanwhile takes over once, and does not wait
        for a second one.
        """
        flight, ours = self.flights.join(key, terms.tags)
        may_take_over = True
        while not ours:
            since, now = flight.since, self._clock.monotonic()
            outcome = yield FlightWait(flight, max(0.0, min(since, now) + terms.wait - now))
            if outcome is NoResult.AGAIN:
                flight, ours = self.flights.join(key, terms.tags)
            elif outcome is NoResult.LATE and may_take_over:
                # Until now the one who computes may have waited for another process.
                if flight.since == since:
                    may_take_over = not self.flights.is_computing()
                    flight, ours = self.flights.relieve(flight)
            elif outcome is NoResult.ALONE or outcome is NoResult.LATE:
                return (yield Call(compute))
            else:
                return outcome
        return (yield from self._fly(flight, compute, terms))

    def _fly(self, flight: Flight, compute: Callable[[], object], terms: ComputeOptions) -> Op[object]:
        """Compute for everybody in this process that asks meanwhile."""
        try:
            with self.flights.computing(flight.key):
                value, shared = yield from self._compute(flight, compute, terms)
        except Exception as error:
            # First out of the list, then the answer: nobody must join a flight that has ended.
            self.flights.leave(flight)
            flight.crash(error)
            raise
        except BaseException:
            self._land(flight, NoResult.AGAIN)  # cancelled or interrupted: somebody else has to do it
            raise
        self._land(flight, value if shared else NoResult.AGAIN)
        return value

    def _land(self, flight: Flight, outcome: object) -> None:
        self.flights.leave(flight)
        if isinstance(outcome, NoResult):
            flight.end(outcome)
            return
        flight.land(outcome)
        # Nobody must join one that was begun because this took too long, and has its value now.
        while flight.successor is not None:
            flight = flight.successor
            self.flights.leave(flight)

    def _compute(
        self, flight: Flight, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[tuple[object, bool]]:
        """The value, and whether those who waited may have it too."""
        key = flight.key
        acquiring = self._store.acquire(key, terms.tags, wait=terms.wait)
        lease = yield from self.guarded(acquiring, otherwise=None)
        flight.since = self._clock.monotonic()
        if isinstance(lease, CacheEntry):
            return lease.value, True
        # The server is away or another process takes too long: an answer late is better than none, so everybody
        # computes.
        if lease is None:
            return (yield Call(compute)), True
        return (yield from self._compute_under(lease, key, compute, terms))

    def _compute_under(
        self, lease: ComputeLease, key: str, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[tuple[object, bool]]:
        try:
            value = yield Call(compute)
            try:
                return value, (yield from self._commit(lease, key, value, terms))
            except EncodeError as error:
                self._unkeepable.note(compute, error)
            yield from self._release(lease, key)
        except GeneratorExit:  # nobody is there any more to do anything for us
            raise
        except BaseException:
            yield from self._release(lease, key)
            raise
        return value, True

    def _commit(self, lease: ComputeLease, key: str, value: object, terms: ComputeOptions) -> Op[bool]:
        end = self._clock.time() + jittered(terms.lifetime, self._jitter)
        entry = CacheEntry(value, fresh_until=end, expires_at=end + terms.grace, tags=lease.tags)
        committing = self._store.commit(key, lease, entry)
        # A server that is away has invalidated nothing that we know of: those who wait here may have the value.
        return (yield from self.guarded(committing, otherwise=True))

    def _release(self, lease: ComputeLease, key: str) -> Op[None]:
        yield from self.guarded(self._store.release(key, lease), otherwise=None)

    def _refresh_beside(self, key: str, compute: Callable[[], object], terms: ComputeOptions) -> Op[None]:
        """Have a stale value computed anew while its readers go on; one process does it, the others need not."""
        flight, ours = self.flights.join(key, terms.tags)
        if ours and not (yield Spawn(self._refresh(flight, compute, terms), name="mks-cache-refresh")):
            self._land(flight, NoResult.AGAIN)

    def _refresh(self, flight: Flight, compute: Callable[[], object], terms: ComputeOptions) -> Op[None]:
        outcome: object = NoResult.AGAIN
        try:
            acquiring = self._store.acquire(flight.key, terms.tags)
            lease = yield from self.guarded(acquiring, otherwise=None)
            if isinstance(lease, ComputeLease):
                outcome = yield from self._refresh_under(lease, flight.key, compute, terms)
        except Exception:
            self._counters.refresh_failed()
            # Logged, as nobody gets this error: the reader has had the stale value.
            _logger.warning("a cached value could not be computed anew", exc_info=True)
        finally:
            self._land(flight, outcome)

    def _refresh_under(
        self, lease: ComputeLease, key: str, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[object]:
        if lease.former is not None:  # another process was quicker
            yield from self._release(lease, key)
            return lease.former.value
        with self.flights.computing(key):
            value, shared = yield from self._compute_under(lease, key, compute, terms)
        return value if shared else NoResult.AGAIN
