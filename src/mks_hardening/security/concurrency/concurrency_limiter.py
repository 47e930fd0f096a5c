"""Concurrency limits: how many operations may run at the same time, across all processes."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial, wraps
from random import random
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

from mks_hardening._core import hooks
from mks_hardening._core.checks import function as checked_function
from mks_hardening._core.checks import mapping, whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import Op, Pause, arun, run
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening._core.resilience.budget import LIMITS_BUDGET
from mks_hardening.events import RateLimitDecided
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConcurrencyExceededError,
    ConfigurationError,
)
from mks_hardening.security._membership import Membership
from mks_hardening.security.concurrency._local_slots import LocalSlots
from mks_hardening.security.concurrency.slot import Slot
from mks_hardening.security.rate_limits._groups import (
    MEMORY,
    Policy,
    is_redis,
    parse_policies,
    unknown_name_error,
)
from mks_hardening.security.rate_limits._keys import bounded_key, encode_group, encode_key

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening.protocols import Clock, RedisLike
    from mks_hardening.security.concurrency._redis_slots import RedisSlots

__all__ = ["ConcurrencyLimiter"]

P = ParamSpec("P")
R = TypeVar("R")

_RENEWALS: Final = 4
"""Renewals within the duration of one lease."""
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25
_LARGEST: Final = 1_000_000


class ConcurrencyLimiter(Closing):
    """Limits how many operations run at the same time: each holds a slot, by a lease that ends with its holder.

    ``acquire`` returns a ``Slot`` at once, which is true if it was acquired, or waits for one; ``hold`` does the
    same for a ``with`` block, and raises an error if there is no slot. Waiting callers are not served in order.

    In Redis, the slots of a process that died become free when their leases expire. While slots are held, a thread
    of the limiter renews their leases, four times within the duration of a lease. In memory, a slot becomes free as
    soon as nothing references it any more.

    Args:
        limits: maximum number of slots that one key may hold, by name of the limit.
        storage: ``"memory://"``, a Redis URL, or a Redis client.
        lease: seconds without a renewal after which a process loses its slots.
        on_unavailable: policy while the storage does not respond: ``local`` grants this process's share of the
            slots among the processes that use the storage (at least one), and counts those it already holds;
            ``open`` grants every slot, ``closed`` none; one for all limits or by name (``local`` for the others).
            Slots acquired during the outage are counted by the storage when it is back.
        processes: minimum number of processes that use the storage. The limiter discovers the actual number within
            a second, but not while Redis is down: until then each process enforces its share of this number.
        namespace: prefix of the keys in Redis.
        store_budget: maximum seconds for one Redis operation.
        allow_plaintext: whether unencrypted connections to Redis on other hosts are allowed.
        clock: replaces the system clock in tests.

    Raises:
        ConfigurationError: an invalid limit or option.
        MissingDependencyError: redis is not installed.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        *,
        storage: str | RedisLike | RedisClient = MEMORY,
        lease: float | timedelta = 10.0,
        on_unavailable: Policy | Mapping[str, Policy] = "local",
        processes: int = 1,
        namespace: str = "mks",
        store_budget: float = LIMITS_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock | None = None,
    ) -> None:
        mapping(limits, parameter="limits", of="names to numbers of slots")
        if not limits or not all(isinstance(name, str) and name for name in limits):
            raise ConfigurationError("limits must contain at least one named limit", parameter="limits")
        self._limits = {
            name: whole_number(quota, parameter=f"limits[{name!r}]", minimum=1, maximum=_LARGEST)
            for name, quota in limits.items()
        }
        self._policies = parse_policies(self._limits, on_unavailable)
        self._clock = given_clock(clock)
        self._every = seconds(lease, parameter="lease", minimum=0.1) / _RENEWALS
        self._local = LocalSlots()
        self._renewal = IntervalThread(self._renew_all, every=self._every, name="mks-slots")
        self._shared: RedisSlots | None = None
        self._incomplete_until = 0.0
        if is_redis(storage, processes, namespace, store_budget, allow_plaintext=allow_plaintext):
            # Imported here, so that an application without Redis does not load the client.
            from mks_hardening.security.concurrency._redis_slots import RedisSlots

            self._shared = RedisSlots(
                storage,
                lease=self._every * _RENEWALS,
                namespace=namespace,
                store_budget=store_budget,
                allow_plaintext=allow_plaintext,
                clock=self._clock,
            )
            self._members = Membership(self._shared.announce, self._clock, expected=processes)

    @property
    def limits(self) -> Mapping[str, int]:
        """The maximum number of slots by name of the limit."""
        return dict(self._limits)

    # --- slots -----------------------------------------------------------------------------------

    def acquire(self, limit: str, key: str = "", *, wait: float | timedelta = 0.0) -> Slot:
        """Acquire a slot of a key; the returned ``Slot`` is false if the maximum number is held.

        Args:
            limit: name of the limit.
            key: the key that holds the slot, for example a user id; any string. Omit it for one set of slots.
            wait: maximum seconds to wait for a slot.

        Raises:
            ConfigurationError: unknown limit, a key that is not a string, or a negative time.
        """
        return run(self._acquire(*self._checked(limit, key, wait)))

    async def aacquire(self, limit: str, key: str = "", *, wait: float | timedelta = 0.0) -> Slot:
        """``acquire`` for asyncio."""
        return await arun(self._acquire(*self._checked(limit, key, wait)))

    def hold(self, limit: str, key: str = "", *, wait: float | timedelta = 0.0) -> HeldSlot:
        """Return a context manager (``with`` or ``async with``) that holds a slot while its block runs.

        Raises:
            ConfigurationError: see ``acquire``.
            ConcurrencyExceededError: raised on entering the block, if there is no slot.
        """
        return HeldSlot(partial(self._acquire, *self._checked(limit, key, wait)), self._limits[limit])

    def held(self, limit: str, key: str = "") -> int:
        """Return how many slots a key holds; during an outage, how many it holds in this process.

        Raises:
            ConfigurationError: see ``acquire``.
        """
        return run(self._held(self._checked(limit, key, 0.0)[1]))

    async def aheld(self, limit: str, key: str = "") -> int:
        """``held`` for asyncio."""
        return await arun(self._held(self._checked(limit, key, 0.0)[1]))

    def limit(
        self, limit: str, *, key: Callable[..., str] | None = None, wait: float | timedelta = 0.0
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, ``def`` or ``async def``, to limit how many of its calls run at the same time.

        Args:
            limit: name of the limit, checked when the function is decorated.
            key: called with the arguments of the decorated function; returns the key that holds the slot. If it
                raises an error, the caller gets it, and the decorated function is not called. Omit it for one set
                of slots.
            wait: see ``acquire``.

        Raises:
            ConfigurationError: see ``acquire``; or the function is a generator, which would release the slot at
                once.
            ConcurrencyExceededError: raised by the decorated function if there is no slot.
        """
        self._checked(limit, "", wait)
        if key is not None:
            checked_function(key, parameter="key")

        def holding(*args: object, **kwargs: object) -> HeldSlot:
            return self.hold(limit, "" if key is None else key(*args, **kwargs), wait=wait)

        import inspect  # not at module level: it is slow to import, and decorators run once

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise ConfigurationError(
                    "a generator would release its slot before its first item: use hold inside it",
                    parameter="function",
                )

            @wraps(function)
            def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                with holding(*args, **kwargs):
                    return function(*args, **kwargs)

            @wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> object:
                async with holding(*args, **kwargs):
                    return await cast(Awaitable[object], function(*args, **kwargs))

            return cast(Callable[P, R], limited_async if inspect.iscoroutinefunction(function) else limited)

        return decorate

    def close(self) -> None:
        """Release connections; calling it twice is safe. Slots still held are released when their leases expire."""
        if self._shared is not None:
            self._shared.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        if self._shared is not None:
            await self._shared.aclose()

    def __repr__(self) -> str:
        return f"ConcurrencyLimiter({self._limits})"

    # --- operations ------------------------------------------------------------------------------

    def _acquire(self, limit: str, place: str, wait: float) -> Op[Slot]:
        end = self._clock.monotonic() + wait
        pause = _FIRST_PAUSE
        while True:
            slot = yield from self._acquire_once(limit, place)
            left = end - self._clock.monotonic()
            if slot or left <= 0:
                return slot
            # With jitter, so that waiting callers do not all retry at the same time.
            yield Pause(min(left, pause * (0.5 + random() / 2)))  # noqa: S311 - no secret
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _acquire_once(self, limit: str, place: str) -> Op[Slot]:
        quota, token, source = self._limits[limit], secrets.token_hex(16), "backend"
        slot = Slot(self, limit=limit, place=place, token=token, held=0)
        try:
            if self._shared is None:
                got, held, wait = self._local.add(slot, most=quota), self._local.number(place), None
            else:
                got, held, wait = yield from self._acquire_shared(self._shared, slot, quota)
        except BackendUnavailableError as error:
            source = self._policies[limit]
            self._members.mark_unavailable()
            wait = error.retry_after
            got = source == "open" or (source == "local" and self._local.add(slot, most=self._share(quota)))
            if source == "open":
                self._local.add(slot)
            held = self._local.number(place)
        if hooks.observers:
            hooks.emit(RateLimitDecided(limit, got, source))
        if not got:
            return Slot.refused(self, limit=limit, held=held, retry_after=wait)
        slot.held = max(held, slot.held)
        if self._shared is not None:
            self._renewal.start()
        return slot

    def _acquire_shared(
        self, shared: RedisSlots, slot: Slot, quota: int
    ) -> Op[tuple[bool, int, float | None]]:
        if self._policies[slot.limit] == "local" and shared.in_doubt():
            raise BackendUnavailableError("slots", "open", operation="acquire", sent=False)
        if self._members.is_due() and (yield from self._members.announce()):
            # The storage does not know the slots of other processes until they renew them.
            self._incomplete_until = self._clock.monotonic() + self._every
        if self._clock.monotonic() < self._incomplete_until:
            yield from self._renew_place(shared, slot.place)
            held = self._local.number(slot.place)
            if held >= self._share(quota):
                return False, held, self._incomplete_until - self._clock.monotonic()
        try:
            got, held, wait = yield from shared.acquire(slot.place, slot.token, quota=quota)
        except (
            Exception,
            GeneratorExit,
        ):  # no reply; or the generator is being closed, and nothing can be yielded any more
            raise
        except BaseException:  # cancelled: without a release the slot would be held until its lease expires
            with suppress(BackendUnavailableError):
                yield from shared.release(slot.place, slot.token)
            raise
        if got:
            slot.known = True
            self._local.add(slot)
        return got, held, None if got else wait

    def _held(self, place: str) -> Op[int]:
        if self._shared is None:
            return self._local.number(place)
        try:
            _, held, _ = yield from self._shared.acquire(place, "", quota=0)
        except BackendUnavailableError:
            return self._local.number(place)
        return held

    def release_slot(self, slot: Slot) -> Op[None]:
        """Release a slot (see ``Slot``); without a reply from the storage it is released when its lease expires.

        A forked child that leaves a block which its parent entered does not release the parent's slot.
        """
        if self._local.drop(slot) and self._shared is not None:
            try:
                yield from self._shared.release(slot.place, slot.token)
            except BackendUnavailableError:
                return

    def renew_slot(self, slot: Slot) -> Op[bool]:
        """Renew the lease of a slot; see ``Slot``."""
        if self._shared is None:
            return True
        try:
            yield from self._renew_some(self._shared, slot.place, [slot])
        except BackendUnavailableError:
            return False
        return not slot.lost

    def _renew_place(self, shared: RedisSlots, place: str) -> Op[None]:
        slots = self._local.by_place().get(place)
        if slots:
            yield from self._renew_some(shared, place, slots)

    @staticmethod
    def _renew_some(shared: RedisSlots, place: str, slots: list[Slot]) -> Op[None]:
        held = yield from shared.renew(place, [slot.token for slot in slots])
        for slot, was_held in zip(slots, held, strict=True):
            slot.lost |= slot.known and not was_held
            slot.known = True

    def _renew_all(self) -> bool:
        """Renew all leases, on the limiter's thread; return whether the thread has to continue."""
        if self._shared is None:
            return False
        places = self._local.by_place()
        for place, slots in places.items():
            try:
                run(self._renew_some(self._shared, place, slots))
            except BackendUnavailableError:
                break  # the next round retries
        return bool(places)

    def _share(self, quota: int) -> int:
        return max(1, self._members.share_of(quota))

    def _checked(self, limit: str, key: object, wait: float | timedelta) -> tuple[str, str, float]:
        if not isinstance(limit, str) or limit not in self._limits:
            raise unknown_name_error(limit, self._limits, parameter="limit")
        place = f"{{{encode_group(limit)}:{encode_key(bounded_key(key))}}}"
        return limit, place, seconds(wait, parameter="wait")


class HeldSlot:
    """Context manager that holds a slot; each use of it acquires a slot of its own."""

    __slots__ = ("_acquire", "_quota", "_slots")

    def __init__(self, acquire: Callable[[], Op[Slot]], quota: int) -> None:
        self._acquire = acquire
        self._quota = quota
        self._slots: list[Slot] = []

    def __enter__(self) -> Slot:
        return self._got(run(self._acquire()))

    def __exit__(self, *error: object) -> None:
        self._slots.pop().release()

    async def __aenter__(self) -> Slot:
        return self._got(await arun(self._acquire()))

    async def __aexit__(self, *error: object) -> None:
        await self._slots.pop().arelease()

    def _got(self, slot: Slot) -> Slot:
        if not slot:
            raise ConcurrencyExceededError(slot.limit, self._quota, retry_after=slot.retry_after)
        self._slots.append(slot)
        return slot
