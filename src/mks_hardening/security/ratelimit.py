"""Rate limits: named groups of limits, all or nothing, one round trip, with a named policy for outages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, ParamSpec, Self, TypeVar, cast

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.lazy import optional
from mks_hardening.events import RateLimitDecided
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, RateLimitExceededError
from mks_hardening.security._counters import Count, Counters
from mks_hardening.security._limiter_memory import MemoryCounters
from mks_hardening.security._limits import Decision, Limit, LimitState, Strategy, checked_limit
from mks_hardening.security._windows import STRATEGIES, Look

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RateLimiter", "Reservation"]

P = ParamSpec("P")
R = TypeVar("R")
Policy = Literal["local", "open", "closed"]
GroupSpec = str | Limit | Sequence[str | Limit]

_POLICIES: Final[tuple[Policy, ...]] = ("local", "open", "closed")
_RETRY_WHEN_CLOSED: Final = 1.0
_LONGEST_KEY: Final = 1024


class _Group(NamedTuple):
    name: str
    limits: tuple[Limit, ...]
    smallest_quota: int
    policy: Policy
    dry_run: bool


class Reservation:
    """Hits taken in advance, true when they were; ``cancel`` gives them back.

    To count only failures: reserve before the attempt, cancel when it succeeded. Parallel attempts cannot exceed
    the limit, as they could if failures were counted afterwards.
    """

    __slots__ = ("_give_back", "decision")

    def __init__(self, decision: Decision, give_back: Callable[[], None] | None) -> None:
        self.decision: Decision = decision
        self._give_back = give_back

    def cancel(self) -> None:
        """Give the hits back; harmless when called twice or when none were taken."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __bool__(self) -> bool:
        return self.decision.allowed

    def __repr__(self) -> str:
        return f"Reservation({self.decision!r})"


class RateLimiter:
    """Counts hits of keys against named groups of limits.

    A hit is allowed if every limit of its group has room; a refused hit takes nothing anywhere. Combine groups for
    one action, for example sign-in by address and by account, so that neither many addresses nor many accounts help
    (ASVS 5.0, 6.3.1).

    Args:
        groups: limits by group name, each a ``Limit``, a text like ``"5 per minute; 20 per hour"``, or several.
        storage: ``"memory://"``, a Redis URL, or a Redis client.
        strategy: how to count, see ``mks_hardening.security._windows``; ``auto`` is exact up to 100 hits a window
            and a sliding window above.
        on_unavailable: when the storage does not answer: ``local`` counts in this process, ``open`` allows,
            ``closed`` refuses; one for all groups or by group (others then ``local``).
        dry_run: groups whose refusals are only reported.
        namespace: prefix of the keys in Redis.
        store_budget: seconds one answer of Redis may take.
        allow_plaintext: whether clear text to Redis may leave this machine.
        clock: for tests.

    Raises:
        ConfigurationError: an impossible group, limit or option.
        MissingDependencyError: limits (for limits written as text) or redis is not installed.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupSpec],
        *,
        storage: str | RedisLike = "memory://",
        strategy: Strategy = "auto",
        on_unavailable: Policy | Mapping[str, Policy] = "local",
        dry_run: Collection[str] = (),
        namespace: str = "mks",
        store_budget: float = 0.1,
        allow_plaintext: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ConfigurationError(f"strategy must be one of {', '.join(STRATEGIES)}", parameter="strategy")
        limits = {name: _limits_of(name, spec) for name, spec in groups.items()}
        policies = (
            dict.fromkeys(limits, on_unavailable) if isinstance(on_unavailable, str) else on_unavailable
        )
        for name in (*policies, *dry_run):
            if name not in limits:
                raise _unknown(name, limits)
        self._groups = {
            name: _Group(
                name,
                some,
                min(limit.quota for limit in some),
                _policy(policies.get(name, "local")),
                name in dry_run,
            )
            for name, some in limits.items()
        }
        now = SYSTEM_CLOCK if clock is None else clock
        self._local = MemoryCounters(strategy=strategy, clock=now)
        self._counters: Counters = self._local
        if storage != "memory://":
            self._counters = _redis_counters(
                storage,
                strategy=strategy,
                namespace=namespace,
                store_budget=store_budget,
                allow_plaintext=allow_plaintext,
                clock=now,
            )

    def hit(self, group: str, key: str, *, cost: int = 1) -> Decision:
        """Take ``cost`` hits of ``key`` if all limits of the group have room; otherwise take none.

        Raises:
            ConfigurationError: unknown group, unusable key, or a cost that is above a quota.
        """
        return self._decide(group, key, cost)[0]

    def reserve(self, group: str, key: str, *, cost: int = 1) -> Reservation:
        """Take hits like ``hit``, in a form that can be given back.

        Raises:
            ConfigurationError: see ``hit``.
        """
        decision, count, counters = self._decide(group, key, cost)
        if count is None or count.taken_at is None:
            return Reservation(decision, None)
        at, limits = count.taken_at, decision.limits

        def give_back() -> None:
            try:
                counters.give_back(group, key, limits, at=at, cost=cost)
            except BackendUnavailableError:
                return  # they stay counted: the safe side

        return Reservation(decision, give_back)

    def test(self, group: str, key: str, *, cost: int = 1) -> Decision:
        """What ``hit`` would answer now, without counting; ``remaining`` is before the hit.

        Raises:
            ConfigurationError: see ``hit``.
        """
        rules = self._checked(group, key, cost)
        try:
            count = self._counters.test(group, key, rules.limits, cost=cost)
        except BackendUnavailableError as error:
            if rules.policy != "local":
                return _outage_decision(rules, error)
            count = self._local.test(group, key, rules.limits, cost=cost)
        return _judged(rules, _decision(rules.limits, count.looks))

    def reset(self, group: str, key: str) -> None:
        """Forget all hits of a key.

        Raises:
            ConfigurationError: unknown group or unusable key.
            BackendUnavailableError: the storage did not answer, so they still count.
        """
        self._checked(group, key, 1)
        self._local.reset(group, key)
        if self._counters is not self._local:
            self._counters.reset(group, key)

    def limit(self, group: str, *, key: Callable[..., str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, ``def`` or ``async def``, so that it is called only within the limits.

        Args:
            group: checked when the function is decorated.
            key: given the arguments of the call, whose hit it is.

        Raises:
            ConfigurationError: unknown group.
            RateLimitExceededError: raised by the decorated function when a limit is reached.
        """
        if group not in self._groups:
            raise _unknown(group, self._groups)

        def take(decision: Decision) -> None:
            if not decision:
                raise RateLimitExceededError(group, decision)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            @wraps(function)
            def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                take(self.hit(group, key(*args, **kwargs)))
                return function(*args, **kwargs)

            @wraps(function)
            async def limited_async(*args: P.args, **kwargs: P.kwargs) -> object:
                take(await self._hit_in_thread(group, key(*args, **kwargs)))
                return await cast(Awaitable[object], function(*args, **kwargs))

            return cast(Callable[P, R], limited_async) if _is_async(function) else limited

        return decorate

    async def _hit_in_thread(self, group: str, key: str) -> Decision:
        """``hit`` without holding up the event loop while Redis is asked."""
        if self._counters is self._local:
            return self.hit(group, key)
        import asyncio

        return await asyncio.to_thread(self.hit, group, key)

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        self._counters.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RateLimiter(groups={sorted(self._groups)})"

    def _decide(self, group: str, key: str, cost: int) -> tuple[Decision, Count | None, Counters]:
        rules = self._checked(group, key, cost)
        counters, source = self._counters, "backend"
        try:
            count = counters.hit(group, key, rules.limits, cost=cost)
        except BackendUnavailableError as error:
            source = rules.policy
            if source != "local":
                return _judged(rules, _outage_decision(rules, error), source), None, counters
            counters = self._local
            count = counters.hit(group, key, rules.limits, cost=cost)
        return _judged(rules, _decision(rules.limits, count.looks), source), count, counters

    def _checked(self, group: str, key: object, cost: int) -> _Group:
        rules = self._groups.get(group)
        if rules is None:
            raise _unknown(group, self._groups)
        if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
            raise ConfigurationError(
                f"key must be a text of 1 to {_LONGEST_KEY} characters, not {type(key).__name__}",
                parameter="key",
            )
        if type(cost) is not int or not 1 <= cost <= rules.smallest_quota:
            raise ConfigurationError(
                f"cost must be an integer from 1 to the quota {rules.smallest_quota}", parameter="cost"
            )
        return rules


def _decision(limits: tuple[Limit, ...], looks: Sequence[Look]) -> Decision:
    """On the path of every hit: lists, because generators cost twice as much."""
    waits = [look.retry_after for look in looks]
    longest = max(waits)
    return Decision(
        not longest,
        limits,
        tuple([look.remaining for look in looks]),
        tuple([look.reset_after / 1e6 for look in looks]),
        longest / 1e6 if longest else None,
        tuple([limit.name for limit, wait in zip(limits, waits, strict=True) if wait]) if longest else (),
    )


def _outage_decision(rules: _Group, error: BackendUnavailableError) -> Decision:
    if rules.policy == "open":
        return Decision.of(LimitState(limit, limit.quota, 0.0) for limit in rules.limits)
    wait = error.retry_after or _RETRY_WHEN_CLOSED
    return Decision.of(LimitState(limit, 0, wait, wait) for limit in rules.limits)


def _judged(rules: _Group, decision: Decision, source: str = "") -> Decision:
    if source and hooks.observers:
        hooks.emit(RateLimitDecided(rules.name, decision.allowed, source, rules.dry_run))
    return decision._replace(allowed=True, retry_after=None) if rules.dry_run else decision


def _unknown(group: str, known: Iterable[str]) -> ConfigurationError:
    return ConfigurationError(
        f"group {group!r} is unknown; there are {', '.join(sorted(known))}", parameter="group"
    )


def _policy(given: object) -> Policy:
    for policy in _POLICIES:
        if policy == given:
            return policy
    raise ConfigurationError(
        f"on_unavailable must be one of {', '.join(_POLICIES)}", parameter="on_unavailable"
    )


def _is_async(function: Callable[..., object]) -> bool:
    import inspect  # not at import: it is heavy, and decorators run once

    return inspect.iscoroutinefunction(function)


def _limits_of(group: str, spec: GroupSpec) -> tuple[Limit, ...]:
    parts: Sequence[str | Limit] = [spec] if isinstance(spec, (str, Limit)) else spec
    found: list[Limit] = []
    for part in parts:
        found += (
            _parsed(part)
            if isinstance(part, str)
            else [checked_limit(part.quota, part.window, name=part.name)]
        )
    if not found or not group:
        raise ConfigurationError("groups must be named and hold at least one limit each", parameter="groups")
    if len({limit.name for limit in found}) != len(found):
        raise ConfigurationError(f"group {group!r} has two limits of one name", parameter="groups")
    return tuple(found)


def _parsed(text: str) -> list[Limit]:
    """Limits as the limits package writes them: ``5 per minute; 20/hour, 100 per 2 days``."""
    with optional("limits", extra="security"):
        from limits import parse_many
    try:
        items = parse_many(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a limit; write for example '5 per minute; 20 per hour'", parameter="groups"
        ) from None
    return [checked_limit(item.amount, float(item.get_expiry())) for item in items]


def _redis_counters(storage: str | RedisLike, *, strategy: Strategy, **options: Any) -> Counters:
    from mks_hardening.security._limiter_redis import RedisCounters

    return RedisCounters(storage, strategy=strategy, **options)
