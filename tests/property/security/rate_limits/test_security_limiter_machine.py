"""A limiter against a plain model that keeps every hit for ever: in memory, on fakeredis, on a real Redis.

The model knows nothing of windows as the limiter counts them; it looks through all hits each time. The clock of the
storage is moved by hand, so that nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mks_hardening.security import Limit, RateLimiter
from mks_hardening.security.rate_limits._windows import strategy_for
from mks_hardening.testing import FrozenClock

STRATEGIES = ["auto", "exact-window", "sliding-window", "fixed-window", "gcra"]
KEYS = ("a", "a}b", "現場")
SETTABLE_TIME = "{redis.call('GET', 'test:s'), redis.call('GET', 'test:us')}"


class Hit(NamedTuple):
    at: int
    cost: int


class Model:
    """All hits of one key that were taken and not given back, and what each strategy says of them."""

    def __init__(self, limits: tuple[Limit, ...], strategy: Any) -> None:
        self.rows = [
            (limit.quota, round(limit.window * 1e6), strategy_for(limit, strategy)) for limit in limits
        ]
        self.hits: list[Hit] = []

    def used(self, now: int, quota: int, window: int, kind: str) -> Fraction:
        hits = self.hits
        if kind == "exact-window":
            return Fraction(sum(hit.cost for hit in hits if hit.at > now - window))
        if kind == "sliding-window":
            edge = now - now % window
            present = sum(hit.cost for hit in hits if hit.at >= edge)
            former = sum(hit.cost for hit in hits if edge - window <= hit.at < edge)
            return present + former * Fraction(window - now % window, window)
        if kind == "fixed-window":
            start, used = None, 0
            for hit in hits:
                if start is None or hit.at >= start + window:
                    start, used = hit.at, 0
                used += hit.cost
            return Fraction(used if start is not None and now < start + window else 0)
        spacing, level, last = -(-window // quota), 0, 0
        for hit in [*hits, Hit(now, 0)]:
            level = max(0, level - (hit.at - last)) + hit.cost * spacing
            last = hit.at
        return Fraction(level, spacing)

    def fits(self, now: int, cost: int) -> bool:
        return all(self.used(now, *row) + cost <= row[0] for row in self.rows)

    def remaining(self, now: int) -> tuple[int, ...]:
        return tuple(max(0, int((row[0] - self.used(now, *row)) // 1)) for row in self.rows)


class LimiterMachine(RuleBasedStateMachine):
    """Hits, looks, reservations, resets and time, in any order."""

    storage: Callable[[], Any]
    limiter: Any = None

    @initialize(
        strategy=st.sampled_from(STRATEGIES),
        rows=st.lists(
            st.tuples(st.integers(1, 120), st.sampled_from([1.0, 10.0, 60.0])), min_size=1, max_size=3
        ),
    )
    def build(self, strategy: Any, rows: Any) -> None:
        self.limits = tuple(Limit(f"l{number}", quota, window) for number, (quota, window) in enumerate(rows))
        self.clock = FrozenClock(0.0)
        self.client = type(self).storage()
        options = {} if self.client is None else {"storage": self.client, "store_budget": 5}
        self.limiter = RateLimiter(
            {"g": self.limits}, strategy=strategy, clock=self.clock, on_unavailable="closed", **options
        )
        if self.client is not None:
            self.client.execute_command("FLUSHALL")
            shared = self.limiter._storage.server
            script = shared._client.script
            shared._client.script = lambda source, **options: script(
                source.replace("redis.call('TIME')", SETTABLE_TIME), **options
            )
        self.models = {key: Model(self.limits, strategy) for key in KEYS}
        self.reservations: list[Any] = []
        self.most = min(limit.quota for limit in self.limits)
        self.set_time()

    def set_time(self) -> None:
        if self.client is not None:
            seconds, rest = divmod(self.now, 1_000_000)
            self.client.execute_command("MSET", "test:s", seconds, "test:us", rest)

    @property
    def now(self) -> int:
        return int(self.clock.monotonic() * 1e6)

    @rule(key=st.sampled_from(KEYS), cost=st.integers(1, 130))
    def hit(self, key: str, cost: int) -> None:
        model = self.models[key]
        decision = self.limiter.hit("g", key, cost=cost)
        assert bool(decision) == model.fits(self.now, cost)
        if decision:
            model.hits.append(Hit(self.now, cost))
        elif cost <= self.most:
            assert decision.retry_after > 0
            assert decision.breached
        else:
            assert decision.retry_after is None
        assert decision.remaining == model.remaining(self.now)

    @rule(key=st.sampled_from(KEYS), cost=st.integers(0, 130))
    def look(self, key: str, cost: int) -> None:
        look = self.limiter.test("g", key, cost=cost)
        assert bool(look) == self.models[key].fits(self.now, cost)
        assert look.remaining == self.models[key].remaining(self.now)

    @rule(key=st.sampled_from(KEYS), cost=st.integers(1, 5))
    def reserve_and_give_back(self, key: str, cost: int) -> None:
        reservation = self.limiter.reserve("g", key, cost=cost)
        assert bool(reservation) == self.models[key].fits(self.now, cost)
        reservation.cancel()
        reservation.cancel()

    @rule(key=st.sampled_from(KEYS))
    def wait_as_long_as_told(self, key: str) -> None:
        refused = self.limiter.hit("g", key, cost=self.most)
        if refused:
            self.models[key].hits.append(Hit(self.now, self.most))
            return
        micros = round(refused.retry_after * 1e6)
        self.clock.advance((micros + 1) / 1e6)  # floats of a clock are a microsecond off at most
        self.set_time()
        assert self.limiter.hit("g", key, cost=self.most)
        self.models[key].hits.append(Hit(self.now, self.most))

    @rule(key=st.sampled_from(KEYS))
    def reset(self, key: str) -> None:
        self.limiter.reset("g", key)
        self.models[key].hits.clear()

    @rule(seconds=st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 130)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.set_time()

    @precondition(lambda self: self.limiter is not None)
    @invariant()
    def no_window_is_overrun(self) -> None:
        """What an exact limit promises, over the whole history."""
        for model in self.models.values():
            for quota, window, kind in model.rows:
                if kind == "exact-window":
                    for hit in model.hits:
                        inside = sum(
                            other.cost for other in model.hits if hit.at <= other.at < hit.at + window
                        )
                        assert inside <= quota

    def teardown(self) -> None:
        if self.limiter is not None:
            self.limiter.close()


def machine_over(make: Callable[[], Any]) -> type[LimiterMachine]:
    return type("Machine", (LimiterMachine,), {"storage": staticmethod(make)})


OPTIONS: dict[str, Any] = {
    "stateful_step_count": 25,
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}


@pytest.mark.parametrize(("where", "examples"), [("memory", 80), ("fakeredis", 20)])
def test_the_limiter_equals_the_model(where: str, examples: int) -> None:
    fake = fakeredis.FakeRedis()
    machine = machine_over(lambda: None if where == "memory" else fake)
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, **OPTIONS))


@pytest.mark.redis
def test_the_limiter_on_redis_equals_the_model(redis_server: Any) -> None:
    with redis_server.client() as client:
        machine = machine_over(lambda: client)
        run_state_machine_as_test(machine, settings=settings(max_examples=40, **OPTIONS))
