"""Rate limits: named groups of limits, all or nothing, in one round trip, with a policy for storage outages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from datetime import timedelta
from functools import partial, wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

from mks_hardening._core.checks import choice, function, is_async, whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.function_errors import call_predicate
from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.request_hits import RequestHits
from mks_hardening._core.resilience.budget import LIMITS_BUDGET
from mks_hardening.exceptions import ConfigurationError, RateLimitExceededError
from mks_hardening.security.rate_limits._decisions import decide, exempt_count
from mks_hardening.security.rate_limits._groups import (
    MEMORY,
    GroupSpec,
    LimitGroup,
    Policy,
    is_redis,
    parse_groups,
    unknown_name_error,
)
from mks_hardening.security.rate_limits._keys import LONGEST_KEY, bounded_key
from mks_hardening.security.rate_limits._memory_counters import MemoryStorage
from mks_hardening.security.rate_limits._schedule import WantedTurn
from mks_hardening.security.rate_limits._windows import STRATEGIES, rows_of
from mks_hardening.security.rate_limits.limit import Decision, Limit, Strategy
from mks_hardening.security.rate_limits.reservation import Reservation
from mks_hardening.security.rate_limits.turn import Turn

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening.protocols import Clock, LimitDecision, RedisLike
    from mks_hardening.security.rate_limits._redis_storage import RedisStorage
    from mks_hardening.security.rate_limits._windows import WindowCount

__all__ = ["RateLimiter"]

_LIMITED: Final = "__mks_limited__"
"""Marks a function that ``RateLimiter.limit`` has decorated."""
_hits_of_call: ContextVar[RequestHits | None] = ContextVar("mks_hits_of_call", default=None)
"""The hits that the outer limits of the function being called have taken."""

P = ParamSpec("P")
R = TypeVar("R")


class RateLimiter(Closing):
    """Counts hits of keys against named groups of limits.

    A hit is allowed if it fits every limit of its group; a refused hit is counted by none of them. Combine groups
    for one action, for example sign-in by address and by account, so that an attacker gains nothing from many
    addresses or many accounts (ASVS 5.0, 6.3.1).

    A key may be any string, whatever its length and script; values sent by clients can be used unchanged.

    Args:
        groups: limits by group name, each a ``Limit``, a text like ``"5 per minute; 20 per hour"``, or several.
        storage: ``"memory://"``, a Redis URL, or a Redis client.
        strategy: how hits are counted. ``exact-window`` never allows more than the quota in any window;
            ``sliding-window`` weights the previous window by its part that still overlaps; ``fixed-window`` starts
            a window with its first hit; ``gcra`` is a token bucket that holds the quota. With bursts, the other
            three allow up to twice the quota in one window. ``auto``: exact for quotas up to 100, sliding above.
        on_unavailable: policy while the storage does not respond: ``local`` counts in this process, ``open`` allows
            every hit, ``closed`` refuses every hit; one for all groups or by group (``local`` for the others).
            ``local`` continues from the counts this process knew last and enforces its share of every limit among
            the processes that use the storage (at least one hit). When the storage is back, these hits are sent to
            it, as are earlier counts that it has lost.
        processes: minimum number of processes that use the storage. The limiter discovers the actual number within
            a second, but not while Redis is down: until then each process enforces its share of this number.
        dry_run: groups whose refusals are only reported.
        exempt: called with group and key; hits for which it returns true are neither counted nor refused. If it
            raises an error, the hit is counted, and the error is logged, at most once a minute.
        namespace: prefix of the keys in Redis.
        store_budget: maximum seconds for one Redis operation.
        allow_plaintext: whether unencrypted connections to Redis on other hosts are allowed.
        clock: replaces the system clock in tests.

    Raises:
        ConfigurationError: an invalid group, limit or option.
        MissingDependencyError: limits (for limits written as text) or redis is not installed.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupSpec],
        *,
        storage: str | RedisLike | RedisClient = MEMORY,
        strategy: Strategy = "auto",
        on_unavailable: Policy | Mapping[str, Policy] = "local",
        processes: int = 1,
        dry_run: Collection[str] = (),
        exempt: Callable[[str, str], bool] | None = None,
        namespace: str = "mks",
        store_budget: float = LIMITS_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock | None = None,
    ) -> None:
        choice(strategy, STRATEGIES, parameter="strategy")
        self._groups = parse_groups(groups, on_unavailable=on_unavailable, dry_run=dry_run)
        self._exempt = exempt if exempt is None else function(exempt, parameter="exempt")
        now = given_clock(clock)
        self._storage: MemoryStorage | RedisStorage
        if is_redis(storage, processes, namespace, store_budget, allow_plaintext=allow_plaintext):
            # Imported here, so that an application without Redis does not load the client.
            from mks_hardening.security.rate_limits._redis_counters import RedisCounters
            from mks_hardening.security.rate_limits._redis_storage import RedisStorage

            server = RedisCounters(
                storage,
                strategy=strategy,
                namespace=namespace,
                store_budget=store_budget,
                allow_plaintext=allow_plaintext,
                clock=now,
            )
            self._storage = RedisStorage(server, self._groups, processes, strategy=strategy, clock=now)
        else:
            self._storage = MemoryStorage(strategy=strategy, clock=now)

    # --- hits and turns --------------------------------------------------------------------------

    def hit(self, group: str, key: str, *, cost: int = 1) -> Decision:
        """Take ``cost`` hits of ``key`` if they fit all limits of the group; otherwise take none.

        A cost of 0 only tests; a cost above a quota is refused without ``retry_after``, as waiting does not help.
        After a refusal by Redis, this process refuses the key without a round trip until the hit fits, for at most
        one second.

        Raises:
            ConfigurationError: unknown group, a key that is not a string, or a cost that is not a whole number.
        """
        rules, key = self._checked(group, key, cost)
        count = self._local_count(rules, key, cost)
        if count is None:
            count = run(self._storage.hit(rules, key, cost))
        return decide(rules, key, cost, count)

    async def ahit(self, group: str, key: str, *, cost: int = 1) -> Decision:
        """``hit`` for asyncio."""
        rules, key = self._checked(group, key, cost)
        count = self._local_count(rules, key, cost)
        if count is None:
            count = await arun(self._storage.hit(rules, key, cost))
        return decide(rules, key, cost, count)

    def reserve(self, group: str, key: str, *, cost: int = 1, recheck: bool = True) -> Reservation:
        """Count hits like ``hit``, in a form that can be given back.

        Args:
            group: see ``hit``.
            key: see ``hit``.
            cost: see ``hit``.
            recheck: ask Redis even about a key that it has just refused, as hits may have been given back since.
                ``False`` refuses such a key without a round trip for up to a second, as ``hit`` does.

        Raises:
            ConfigurationError: see ``hit``.
        """
        rules, key = self._checked(group, key, cost)
        if recheck:
            self._storage.forget_refusal(rules, key)
        count = self._local_count(rules, key, cost)
        if count is None:
            count = run(self._storage.hit(rules, key, cost))
        return self._reservation(rules, key, cost, count)

    async def areserve(self, group: str, key: str, *, cost: int = 1, recheck: bool = True) -> Reservation:
        """``reserve`` for asyncio."""
        rules, key = self._checked(group, key, cost)
        if recheck:
            self._storage.forget_refusal(rules, key)
        count = self._local_count(rules, key, cost)
        if count is None:
            count = await arun(self._storage.hit(rules, key, cost))
        return self._reservation(rules, key, cost, count)

    def test(self, group: str, key: str, *, cost: int = 1) -> Decision:
        """Return what ``hit`` would return now, without counting; ``remaining`` is the value before the hit.

        Raises:
            ConfigurationError: see ``hit``.
        """
        return run(self._test(*self._checked(group, key, cost), cost))

    async def atest(self, group: str, key: str, *, cost: int = 1) -> Decision:
        """``test`` for asyncio."""
        return await arun(self._test(*self._checked(group, key, cost), cost))

    def reset(self, group: str, key: str) -> None:
        """Drop all hits of a key.

        Raises:
            ConfigurationError: unknown group or a key that is not a string.
            BackendUnavailableError: the storage did not respond, so the hits still count.
        """
        run(self._storage.reset(*self._checked(group, key, 1)))

    async def areset(self, group: str, key: str) -> None:
        """``reset`` for asyncio."""
        await arun(self._storage.reset(*self._checked(group, key, 1)))

    def pace(
        self,
        group: str,
        key: str = "",
        *,
        cost: int = 1,
        burst: int = 1,
        timeout: float | timedelta = 30.0,
    ) -> Turn:
        """Return the turn of an outgoing call: ``await limiter.pace("mail")``, or ``limiter.pace("mail").wait()``.

        Calls go out evenly, at the pace of the slowest limit of the group, across all processes that use the
        storage, in the order of their requests. With ``burst=1`` no window holds more calls than its limit. Without
        Redis the pace applies to this process alone. While Redis is down, ``local`` continues from the schedule
        this process knew last at its share of the pace, ``open`` does not wait, and ``closed`` raises an error.

        Args:
            group: the group whose limits set the pace.
            key: what is called, for example a host; each key has its own schedule. Omit it for a single schedule.
            cost: how many calls this one counts as: the next call is delayed accordingly.
            burst: how many calls may go out at once after a pause.
            timeout: maximum seconds until the turn; a call that would wait longer fails at once.

        Returns:
            The turn. Waiting for it returns the seconds waited, or raises ``PaceTimeoutError`` at once if the turn
            would come too late.

        Raises:
            ConfigurationError: unknown group, a key that is not a string, or a number out of range.
        """
        rules, key = self._checked(group, key, cost)
        wanted = WantedTurn(
            spacing=max(-(-window // quota) for quota, window in rows_of(rules.limits)),
            cost=whole_number(cost, parameter="cost", minimum=1, maximum=1_000_000),
            burst=whole_number(burst, parameter="burst", minimum=1, maximum=1_000_000),
            longest=round(seconds(timeout, parameter="timeout") * 1e6),
        )
        return Turn(group, lambda: self._paced(rules, key, wanted))

    @property
    def groups(self) -> Mapping[str, tuple[Limit, ...]]:
        """The limits by group."""
        return {name: rules.limits for name, rules in self._groups.items()}

    @property
    def dry_run(self) -> frozenset[str]:
        """Groups whose refusals are only reported."""
        return frozenset(name for name, rules in self._groups.items() if rules.dry_run)

    @property
    def on_unavailable(self) -> Mapping[str, Policy]:
        """The policy for storage outages by group."""
        return {name: rules.policy for name, rules in self._groups.items()}

    def exempts(self, group: str, key: str) -> bool:
        """Return whether hits of this key are neither counted nor refused."""
        return self._exempt is not None and call_predicate(
            self._exempt, group, key, parameter="exempt", otherwise="the hit is counted"
        )

    # --- decorator, lifecycle --------------------------------------------------------------------

    def limit(self, group: str, *, key: Callable[..., str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, ``def`` or ``async def``, so that it is called only within the limits.

        Several of these decorators on one function count together, whatever their order: a call that one of them
        refuses is not counted by the others.

        Args:
            group: name of the group, checked when the function is decorated.
            key: called with the arguments of the decorated function; returns the key of the hit. If it raises an
                error, the caller gets it, and the decorated function is not called.

        Raises:
            ConfigurationError: unknown group, or ``key`` is not a function.
            RateLimitExceededError: raised by the decorated function when a limit is reached.
        """
        self._checked(group, "", 0)
        function(key, parameter="key")

        def check(decision: LimitDecision) -> None:
            if not decision.allowed:
                raise RateLimitExceededError(group, decision)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            # ``wraps`` copies the mark, so a decorator between two limits does not hide the inner one.
            has_inner_limit = hasattr(function, _LIMITED)

            @wraps(function)
            def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                hits = _hits_of_call.get() or RequestHits()
                check(hits.hit(self, group, key(*args, **kwargs)))
                # The function may call other limited functions; those calls are counted separately.
                token = _hits_of_call.set(hits if has_inner_limit else None)
                try:
                    return function(*args, **kwargs)
                finally:
                    _hits_of_call.reset(token)

            @wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> object:
                hits = _hits_of_call.get() or RequestHits()
                check(await hits.ahit(self, group, key(*args, **kwargs)))
                token = _hits_of_call.set(hits if has_inner_limit else None)
                try:
                    return await cast(Awaitable[object], function(*args, **kwargs))
                finally:
                    _hits_of_call.reset(token)

            chosen = cast(Callable[P, R], limited_async) if is_async(function) else limited
            setattr(chosen, _LIMITED, True)
            return chosen

        return decorate

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        self._storage.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self._storage.aclose()

    def __repr__(self) -> str:
        return f"RateLimiter(groups={sorted(self._groups)})"

    # --- operations ------------------------------------------------------------------------------

    def _local_count(self, rules: LimitGroup, key: str, cost: int) -> WindowCount | None:
        """Return the result of a hit that needs no round trip, otherwise ``None``."""
        if self._exempt is not None and self.exempts(rules.name, key):
            return exempt_count(rules, "exempt")
        return self._storage.hit_locally(rules, key, cost)

    def _reservation(self, rules: LimitGroup, key: str, cost: int, count: WindowCount) -> Reservation:
        decision = decide(rules, key, cost, count)
        if count.taken_at is None:
            return Reservation(decision, None)
        return Reservation(decision, partial(self._storage.give_back, rules, key, cost, count))

    def _paced(self, rules: LimitGroup, key: str, wanted: WantedTurn) -> Op[float]:
        if self.exempts(rules.name, key):
            return 0.0
        return (yield from self._storage.schedule.turn(rules, key, wanted))

    def _test(self, rules: LimitGroup, key: str, cost: int) -> Op[Decision]:
        if self.exempts(rules.name, key):
            return decide(rules, key, 0, exempt_count(rules, ""))
        return decide(rules, key, cost, (yield from self._storage.test(rules, key, cost)))

    def _checked(self, group: str, key: object, cost: object) -> tuple[LimitGroup, str]:
        rules = self._groups.get(group) if isinstance(group, str) else None
        if rules is None:
            raise unknown_name_error(group, self._groups)
        if type(cost) is not int or cost < 0:
            raise ConfigurationError("cost must be a whole number of at least 0", parameter="cost")
        return rules, key if type(key) is str and len(key) <= LONGEST_KEY else bounded_key(key)
