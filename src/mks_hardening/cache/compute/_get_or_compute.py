"""The algorithm of ``get_or_compute``: a fresh, stale or computed value, computed once among all processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, log
from random import random
from typing import Final, NamedTuple, TypeVar, cast

from mks_hardening._core.operations import Call, Op, Spawn
from mks_hardening.cache._compute_lease import ComputeLease
from mks_hardening.cache._counters import CacheCounters
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._entry_options import check_key, jittered
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache._transaction_scope import current_scopes
from mks_hardening.cache.compute._backoff import Backoff
from mks_hardening.cache.compute._result_computation import ResultComputation
from mks_hardening.cache.compute._singleflight import Flight, Flights, FlightWait, NoResult
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, EncodeError
from mks_hardening.protocols import Clock

__all__ = ["ComputeOptions", "ValueComputer"]

T = TypeVar("T")
U = TypeVar("U")

_MOST_WARNINGS: Final = 1000
"""Functions to warn about: local ones can have any number of names, and nobody reads more warnings than these."""
_logger = logging.getLogger("mks_hardening.cache")


class ComputeOptions(NamedTuple):
    """How a computed value is stored and waited for.

    Attributes:
        lifetime: seconds for which the value is fresh.
        grace: further seconds for which it is served stale.
        tags: tags of the entry.
        wait: seconds after which a computation takes too long for the waiting callers.
        error_grace: further seconds for which it is served when it cannot be recomputed.
        soft_timeout: seconds that a caller waits for a new value while there is one for errors; None: to the end.
        early: how eagerly a fresh value is recomputed before it expires; 0 for never.
        counters: counters of one function, besides those of the cache.
    """

    lifetime: float
    grace: float
    tags: tuple[str, ...]
    wait: float
    error_grace: float = 0.0
    soft_timeout: float | None = None
    early: float = 0.0
    counters: CacheCounters | None = None


class ValueComputer:
    """Gets the values of one cache, and computes missing ones.

    Args:
        store: the entries.
        counters: counters of reads, errors and bypasses.
        jitter: share of each ttl that is subtracted at random.
        clock: source of time.
    """

    def __init__(self, store: CacheStore, counters: CacheCounters, *, jitter: float, clock: Clock) -> None:
        self._store = store
        self._counters = counters
        self._jitter = jitter
        self._clock = clock
        self._warned: set[str] = set()
        self._backoff = Backoff(clock=clock)
        self.flights = Flights()

    def entry(self, key: str, tags: tuple[str, ...] = ()) -> Op[CacheEntry | None]:
        """Return the entry, fresh or stale; None if there is none or the backend is unavailable."""
        (entry,) = yield from self.entries((key,), tags)
        return entry

    def entries(self, keys: Sequence[str], tags: tuple[str, ...] = ()) -> Op[list[CacheEntry | None]]:
        """Return the entries of several keys, and none for what a transaction of this context has changed."""
        try:
            entries = yield from self._store.load(keys, tags)
        except BackendUnavailableError as error:
            self._counters.failed(error)
            return [None] * len(keys)
        for scope in current_scopes():
            entries = [
                None if entry is None or scope.covers(key, entry.tags) else entry
                for key, entry in zip(keys, entries, strict=True)
            ]
        return entries

    def is_fresh(self, entry: CacheEntry | None) -> bool:
        """Return whether there is an entry that is still fresh."""
        return entry is not None and self._clock.time() < entry.fresh_until

    def guarded(self, operation: Op[T], *, otherwise: U) -> Op[T | U]:
        """Perform an operation; return ``otherwise`` if the backend is unavailable."""
        try:
            return (yield from operation)
        except BackendUnavailableError as error:
            self._counters.failed(error)
            return otherwise

    def get_or_compute(self, key: str, compute: Callable[[], object], terms: ComputeOptions) -> Op[object]:
        """Return the value of ``key``, from the first source that has it."""
        check_key(key)
        entry = yield from self.entry(key, terms.tags)
        if current_scopes():
            return (yield from self._in_transaction(entry, compute, terms))
        if entry is not None:
            now = self._clock.time()
            if now < entry.fresh_until:
                self._count_read(terms, found=True)
                if terms.early and (until := now + _lead(entry, terms.early)) >= entry.fresh_until:
                    yield from self._refresh_in_background(key, compute, terms, until)
                return entry.value
            if terms.error_grace and not self.flights.is_own(key):
                return (yield from self._stale_or_computed(entry, key, compute, terms))
            if terms.grace:
                self._count_stale(terms)
                yield from self._refresh_in_background(key, compute, terms, now)
                return entry.value
        self._count_read(terms, found=False)
        # A recursive function would wait for itself until `compute_wait` has passed.
        if not terms.lifetime or self.flights.is_own(key):
            return (yield Call(compute))
        return (yield from self._compute_or_wait(key, compute, terms))

    def get_or_compute_many(
        self, keys: Sequence[str], compute: Callable[[list[str]], object], terms: ComputeOptions
    ) -> Op[dict[str, object]]:
        """Return the values of several keys; one call computes all missing ones."""
        entries = yield from self.entries(keys, terms.tags)
        values: dict[str, object] = {}
        for key, entry in zip(keys, entries, strict=True):
            fresh = self.is_fresh(entry)
            self._count_read(terms, found=fresh)
            if entry is not None and fresh:
                values[key] = entry.value
        missing = [key for key in keys if key not in values]
        leases: dict[str, ComputeLease] = {}
        if missing and terms.lifetime and not current_scopes():
            leases = yield from self.guarded(self._store.acquire_many(missing, terms.tags), otherwise=leases)
        try:
            if missing:
                computed = yield Call(partial(compute, missing))
                found = {key: value for key, value in _mapping(computed).items() if key in missing}
                values |= found
                yield from self._commit_many(leases, found, compute, terms)
        except GeneratorExit:
            raise
        except BaseException:
            for key, lease in leases.items():
                yield from self._release(lease, key)
            raise
        return values

    def _commit_many(
        self,
        leases: dict[str, ComputeLease],
        found: Mapping[str, object],
        compute: Callable[[list[str]], object],
        terms: ComputeOptions,
    ) -> Op[None]:
        for key in [key for key in leases if key not in found]:
            yield from self._release(leases.pop(key), key)
        computed = {
            key: (lease, self._new_entry(found[key], terms.lifetime, terms, lease))
            for key, lease in leases.items()
        }
        nothing: list[str] = []
        refused = yield from self.guarded(self._store.commit_many(computed), otherwise=nothing)
        for key in refused:
            self._count_uncacheable(partial(compute, [key]), EncodeError("a value cannot be stored"))

    def _in_transaction(
        self, entry: CacheEntry | None, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[object]:
        """Return the fresh value, or compute without storing: the transaction may be rolled back, or its data old.

        Nor does it wait for another caller, who may be waiting for a lock of this transaction.
        """
        if entry is not None and self.is_fresh(entry):
            self._count_read(terms, found=True)
            return entry.value
        self._count_read(terms, found=False)
        return (yield Call(compute))

    def refresh(self, key: str, compute: Callable[[], object], terms: ComputeOptions) -> Op[object]:
        """Compute the value now and store it, whatever is stored; readers get the old one until then."""
        check_key(key)
        if current_scopes():
            return (yield Call(compute))
        # Computations that began earlier may be of older data.
        self.flights.void(keys=(key,))
        acquiring = self._store.acquire(key, terms.tags)
        lease = yield from self.guarded(acquiring, otherwise=None)
        if lease is None:
            yield from self.guarded(self._store.remove((key,)), otherwise=0)
            lease = yield from self.guarded(self._store.acquire(key, terms.tags), otherwise=None)
        if not isinstance(lease, ComputeLease):
            return (yield Call(compute))
        with self.flights.computing(key):
            value, _outcome = yield from self._compute_under(lease, Flight(key, terms.tags), compute, terms)
        self._backoff.succeeded(key)
        return value

    def _stale_or_computed(
        self, entry: CacheEntry, key: str, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[object]:
        """Return a new value, or the expired one: at once, after an error, or when it takes too long."""
        now = self._clock.time()
        in_grace = now < entry.fresh_until + terms.grace
        waits = self._backoff.is_waiting(key)
        if in_grace or waits:
            self._count_stale(terms)
            if not waits:
                yield from self._refresh_in_background(key, compute, terms, now)
            return entry.value
        try:
            if terms.soft_timeout is None:
                value = yield from self._compute_or_wait(key, compute, terms)
            else:
                value = yield from self._compute_beside(key, compute, terms, now)
        except Exception:  # noqa: BLE001 - of the function of the caller, who gets the old value instead
            self._count_failure(key, terms)
            value = NoResult.AGAIN
        if isinstance(value, NoResult):
            self._count_stale(terms)
            return entry.value
        self._count_read(terms, found=False)
        self._backoff.succeeded(key)
        return value

    def _compute_beside(
        self, key: str, compute: Callable[[], object], terms: ComputeOptions, now: float
    ) -> Op[object]:
        """Compute in the background, and wait for the value for a limited time."""
        begun = self._clock.monotonic()
        flight, ours = self.flights.join(key, terms.tags)
        if ours:
            flight.waiting += 1  # this caller waits too
            refresh = self._refresh(flight, compute, terms, now)
            if not (yield Spawn(refresh, name="mks-cache-refresh")):
                self._finish_flight(flight, NoResult.AGAIN)
        outcome = yield FlightWait(flight, terms.soft_timeout or 0.0)
        return outcome if ours or begun <= flight.proved else NoResult.AGAIN

    def _count_read(self, terms: ComputeOptions, *, found: bool) -> None:
        self._counters.read(found=found)
        if terms.counters is not None:
            terms.counters.read(found=found)

    def _count_stale(self, terms: ComputeOptions) -> None:
        self._counters.stale()
        if terms.counters is not None:
            terms.counters.stale()

    def _count_failure(self, key: str, terms: ComputeOptions) -> None:
        """Count a computation that failed while there is an expired value; its error reaches no caller."""
        self._counters.refresh_failed()
        if terms.counters is not None:
            terms.counters.refresh_failed()
        if not terms.error_grace or self._backoff.failed(key):
            # In the handler of the caller.
            _logger.warning("a cached value could not be recomputed", exc_info=True)  # noqa: LOG014

    def _compute_or_wait(self, key: str, compute: Callable[[], object], terms: ComputeOptions) -> Op[object]:
        """Compute for all callers, or wait for another caller's computation; but never for ever.

        When a computation takes too long, one of the waiting callers computes as well, and all get the first value:
        if all of them did, a slow computation would run many times at once. Two functions that call each other from
        two threads would wait for each other: a caller that is itself computing something takes over once, and does
        not wait for a second computation.
        """
        begun = self._clock.monotonic()
        flight, ours = self.flights.join(key, terms.tags)
        may_take_over = True
        while not ours:
            since, now = flight.since, self._clock.monotonic()
            outcome = yield FlightWait(flight, max(0.0, min(since, now) + terms.wait - now))
            if begun > flight.proved and not isinstance(outcome, NoResult):
                outcome = NoResult.AGAIN
            if outcome is NoResult.AGAIN:
                flight, ours = self.flights.join(key, terms.tags)
            elif outcome is NoResult.LATE and may_take_over:
                # If it has changed, the computing caller was waiting for another process until then.
                if flight.since == since:
                    may_take_over = not self.flights.is_computing()
                    flight, ours = self.flights.start_successor(flight)
            elif outcome is NoResult.ALONE or outcome is NoResult.LATE:
                return (yield Call(compute))
            else:
                return outcome
        return (yield from self._compute_shared(flight, compute, terms))

    def _compute_shared(
        self, flight: Flight, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[object]:
        """Compute for all callers in this process that request the key in the meantime."""
        try:
            with self.flights.computing(flight.key):
                value, outcome = yield from self._compute(flight, compute, terms)
        except Exception as error:
            # Removed from the list before the error is set: nobody must join a flight that has ended.
            self.flights.leave(flight)
            flight.crash(error)
            raise
        except BaseException:
            self._finish_flight(
                flight, NoResult.AGAIN
            )  # cancelled or interrupted: another caller has to compute
            raise
        self._finish_flight(flight, outcome)
        return value

    def _finish_flight(self, flight: Flight, outcome: object) -> None:
        self.flights.leave(flight)
        if isinstance(outcome, NoResult):
            flight.end(outcome)
            return
        flight.land(outcome)
        # Nobody must join a successor, which was started because this one took too long and has its value now.
        while flight.successor is not None:
            flight = flight.successor
            self.flights.leave(flight)

    def _compute(
        self, flight: Flight, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[tuple[object, object]]:
        """Return the value, and the one for the waiting callers or why they get none."""
        key = flight.key
        acquiring = self._store.acquire(key, terms.tags, wait=terms.wait)
        lease = yield from self.guarded(acquiring, otherwise=None)
        flight.since = self._clock.monotonic()
        if isinstance(lease, CacheEntry):
            return lease.value, (yield from self._value_for_waiting(flight, lease))
        # An outage, or another process takes too long: computing in every process is better than no value.
        # Later callers cannot have it: where Redis only refuses writes, another process may have invalidated it.
        if lease is None:
            flight.proved = flight.since
            value = yield Call(compute)
            return value, value
        return (yield from self._compute_under(lease, flight, compute, terms))

    def _value_for_waiting(self, flight: Flight, entry: CacheEntry) -> Op[object]:
        """Return the stored value, valid for those, too, who began to wait while it was computed or fetched.

        The lease proves that it was valid before that. Another process may have invalidated it since, and who came
        after that must not have it. If the store does not respond, only callers from before the computation get it.
        """
        if not flight.is_awaited():
            return NoResult.AGAIN  # for those who come now
        now = self._clock.monotonic()
        try:
            (stored,) = yield from self._store.load((flight.key,), tuple(entry.tags))
        except BackendUnavailableError as error:
            self._counters.failed(error)
            return entry.value
        flight.proved = now
        if stored is not None:
            return stored.value
        # What has expired by itself was valid until then.
        return NoResult.AGAIN if self._clock.time() < entry.expires_at else entry.value

    def _compute_under(
        self, lease: ComputeLease, flight: Flight, compute: Callable[[], object], terms: ComputeOptions
    ) -> Op[tuple[object, object]]:
        key = flight.key
        try:
            flight.proved = begun = self._clock.monotonic()
            value = yield Call(compute)
            cost = self._clock.monotonic() - begun if terms.early else 0.0
            chosen = compute.lifetime if isinstance(compute, ResultComputation) else None
            lifetime = terms.lifetime if chosen is None else chosen
            if lifetime:
                try:
                    entry = self._new_entry(value, lifetime, terms, lease)
                    entry.cost = cost
                    committed = yield from self.guarded(self._store.commit(key, lease, entry), otherwise=None)
                    if committed is None:
                        return value, value
                    if not committed:
                        return value, NoResult.AGAIN
                    return value, (yield from self._value_for_waiting(flight, entry))
                except EncodeError as error:
                    self._count_uncacheable(compute, error)
            flight.proved = inf  # no store can tell
            yield from self._release(lease, key)
        except GeneratorExit:  # the generator is being closed, and nothing can be yielded any more
            raise
        except BaseException:
            yield from self._release(lease, key)
            raise
        return value, value

    def _new_entry(
        self, value: object, lifetime: float, terms: ComputeOptions, lease: ComputeLease
    ) -> CacheEntry:
        end = self._clock.time() + jittered(lifetime, self._jitter)
        last = end + max(terms.grace, terms.error_grace)
        return CacheEntry(value, fresh_until=end, expires_at=last, tags=lease.tags)

    def _count_uncacheable(self, compute: Callable[[], object], error: EncodeError) -> None:
        """Count a value that is not plain data or too large, and warn once per function."""
        self._counters.bypass("no data")
        name = _name(compute)
        if name not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(name)
            _logger.warning("the result of %s is not cached and is computed on every call: %s", name, error)

    def _release(self, lease: ComputeLease, key: str) -> Op[None]:
        yield from self.guarded(self._store.release(key, lease), otherwise=None)

    def _refresh_in_background(
        self, key: str, compute: Callable[[], object], terms: ComputeOptions, until: float
    ) -> Op[None]:
        """Refresh a value in the background, in one process; readers continue with the present one.

        A value that another process has stored in the meantime suffices if it is fresh beyond ``until``.
        """
        flight, ours = self.flights.join(key, terms.tags)
        refresh = self._refresh(flight, compute, terms, until)
        if ours and not (yield Spawn(refresh, name="mks-cache-refresh")):
            self._finish_flight(flight, NoResult.AGAIN)

    def _refresh(
        self, flight: Flight, compute: Callable[[], object], terms: ComputeOptions, until: float
    ) -> Op[None]:
        outcome: object = NoResult.AGAIN
        try:
            acquiring = self._store.acquire(flight.key, terms.tags)
            lease = yield from self.guarded(acquiring, otherwise=None)
            if isinstance(lease, ComputeLease):
                outcome = yield from self._refresh_under(lease, flight, compute, terms, until)
                self._backoff.succeeded(flight.key)
        except Exception:  # noqa: BLE001 - no caller gets this error: the reader already has the stale value
            self._count_failure(flight.key, terms)
        finally:
            self._finish_flight(flight, outcome)

    def _refresh_under(
        self,
        lease: ComputeLease,
        flight: Flight,
        compute: Callable[[], object],
        terms: ComputeOptions,
        until: float,
    ) -> Op[object]:
        if lease.former is not None and lease.former.fresh_until > until:  # another process was faster
            yield from self._release(lease, flight.key)
            return (yield from self._value_for_waiting(flight, lease.former))
        with self.flights.computing(flight.key):
            _value, outcome = yield from self._compute_under(lease, flight, compute, terms)
        return outcome


def _mapping(computed: object) -> Mapping[str, object]:
    if not isinstance(computed, Mapping):
        raise ConfigurationError(
            f"compute must return a mapping of keys to values, not {type(computed).__name__}",
            parameter="compute",
        )
    return cast("Mapping[str, object]", computed)


def _lead(entry: CacheEntry, eagerness: float) -> float:
    """Return how long before its expiry a value is recomputed by this call, one among many (XFetch)."""
    # The longer the computation takes, the sooner; 1 - random() is never zero.
    return -entry.cost * eagerness * log(1.0 - random())  # noqa: S311 - spreads load, protects nothing


def _name(compute: Callable[[], object]) -> str:
    function = getattr(compute, "__wrapped__", compute)
    function = function.func if isinstance(function, partial) else function
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(function, '__module__', '?')}.{name}"
