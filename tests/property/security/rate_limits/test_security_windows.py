"""The counters against plain models that keep every hit for ever."""

from collections.abc import Iterator
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening.security import Limit, RateLimiter
from mks_hardening.security.rate_limits import _windows
from mks_hardening.security.rate_limits._windows import counter_for
from mks_hardening.testing import FrozenClock

STRATEGIES = ["exact-window", "sliding-window", "fixed-window", "gcra"]


class Look(NamedTuple):
    """Where a single limit stands."""

    remaining: int
    reset_after: int
    retry_after: int


def one(make: Any) -> Any:
    """A counter, by quota and window, that answers for its single limit."""

    class One:
        def __init__(self, quota: int, window: int) -> None:
            self.counter = make((quota, window))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.counter, name)

        def peek(self, now: int, cost: int) -> Look:
            count = self.counter.peek(now, cost)
            return Look(*(column[0] for column in count[:3]))

    One.__name__ = make.__name__
    return One


ExactWindow, SlidingWindow = one(_windows.ExactWindow), one(_windows.SlidingWindow)
FixedWindow, Gcra = one(_windows.FixedWindow), one(_windows.Gcra)
COUNTERS = [ExactWindow, SlidingWindow, FixedWindow, Gcra]
gaps = st.one_of(st.just(0), st.integers(0, 30), st.integers(0, 3000))


@st.composite
def runs(draw: Any) -> Any:
    quota = draw(st.integers(1, 9))
    window = draw(st.integers(quota, 1000))
    steps = draw(st.lists(st.tuples(gaps, st.integers(1, quota)), max_size=60))
    return quota, window, steps


def play(counter: Any, steps: Any, *, start: Any = 1_000_000) -> Iterator[Any]:
    """Offer hits one after another: (moment, cost, state before, counted)."""
    now = start
    for gap, cost in steps:
        now += gap
        look = counter.peek(now, cost)
        if not look.retry_after:
            counter.add(now, cost)
        yield now, cost, look


@given(runs())
def test_exact_window_equals_the_model_that_keeps_every_hit(run: Any) -> None:
    quota, window, steps = run
    hits = []
    for now, cost, look in play(ExactWindow(quota, window), steps):
        inside = [hit for hit in hits if hit > now - window]
        fits = len(inside) + cost <= quota
        assert look.remaining == quota - len(inside)
        assert look.reset_after == (max(inside) + window - now if inside else 0)
        assert (look.retry_after == 0) == fits
        if fits:
            hits += [now] * cost
    for moment in hits:
        assert sum(moment <= hit < moment + window for hit in hits) <= quota


@given(runs())
def test_sliding_window_equals_the_model_in_fractions(run: Any) -> None:
    quota, window, steps = run
    hits = []
    for now, cost, look in play(SlidingWindow(quota, window), steps):
        edge = now - now % window
        present = sum(hit >= edge for hit in hits)
        former = sum(edge - window <= hit < edge for hit in hits)
        used = present + former * Fraction(window - now % window, window)
        assert look.remaining == max(0, floor(quota - used))
        assert (look.retry_after == 0) == (used + cost <= quota)
        if not look.retry_after:
            hits += [now] * cost


@given(runs())
def test_fixed_window_equals_the_model(run: Any) -> None:
    quota, window, steps = run
    start, used = None, 0
    for now, cost, look in play(FixedWindow(quota, window), steps):
        if start is None or now >= start + window:
            start, used = None, 0
        assert look.remaining == quota - used
        assert (look.retry_after == 0) == (used + cost <= quota)
        if not look.retry_after:
            start, used = (now if start is None else start), used + cost


@given(runs())
def test_gcra_is_a_bucket_that_refills_steadily(run: Any) -> None:
    quota, window, steps = run
    spacing = -(-window // quota)
    level, last = 0, 0
    for now, cost, look in play(Gcra(quota, window), steps):
        level, last = max(0, level - (now - last)), now
        fits = level + cost * spacing <= quota * spacing
        assert (look.retry_after == 0) == fits
        assert look.remaining == (quota * spacing - level) // spacing
        assert look.reset_after == level
        if fits:
            level += cost * spacing


@pytest.mark.parametrize("make", COUNTERS)
@given(run=runs())
def test_retry_after_is_exact(make: Any, run: Any) -> None:
    quota, window, steps = run
    counter = make(quota, window)
    for now, cost, look in play(counter, steps):
        if look.retry_after:
            assert counter.peek(now + look.retry_after, cost).retry_after == 0
            assert counter.peek(now + look.retry_after - 1, cost).retry_after > 0


@pytest.mark.parametrize("make", COUNTERS)
@given(run=runs())
def test_reset_after_brings_the_full_quota(make: Any, run: Any) -> None:
    quota, window, steps = run
    counter = make(quota, window)
    for now, _, _ in play(counter, steps):
        look = counter.peek(now, quota)
        assert counter.peek(now + look.reset_after, quota).retry_after == 0
        assert 0 <= look.remaining <= quota


@pytest.mark.parametrize("make", COUNTERS)
@given(run=runs())
def test_giving_back_at_once_changes_nothing(make: Any, run: Any) -> None:
    quota, window, steps = run
    counter, twin = make(quota, window), make(quota, window)
    for (now, _, look), (_, _, same) in zip(play(counter, steps), play(twin, steps), strict=True):
        assert look.remaining == same.remaining
        assert bool(look.retry_after) == bool(same.retry_after)
        if not counter.peek(now, 1).retry_after:
            counter.add(now, 1)
            counter.give_back(now, 1)


@given(
    quotas=st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from([10.0, 60.0, 600.0])), min_size=1, max_size=3
    ),
    strategy=st.sampled_from(["exact-window", "sliding-window", "fixed-window", "gcra"]),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 6)), max_size=40),
)
@example(quotas=[(5, 60.0), (2, 600.0)], strategy="exact-window", steps=[(0.0, 1)] * 9)
def test_a_group_is_all_or_nothing(quotas: Any, strategy: str, steps: Any) -> None:
    limits = [Limit(f"l{number}", quota, window) for number, (quota, window) in enumerate(quotas)]
    clock = FrozenClock()
    limiter = RateLimiter({"g": limits}, strategy=strategy, clock=clock)
    most = min(quota for quota, _ in quotas)
    for gap, cost in steps:
        clock.advance(gap)
        before = limiter.test("g", "k", cost=min(cost, most))
        decision = limiter.hit("g", "k", cost=min(cost, most))
        assert bool(decision) == bool(before)
        assert bool(decision) == (not decision.breached) == (decision.retry_after is None)
        if decision:
            taken = {was - now for was, now in zip(before.remaining, decision.remaining, strict=True)}
            assert taken == {min(cost, most)}
        else:
            assert decision == before


@pytest.mark.parametrize("make", COUNTERS)
@given(
    quota=st.integers(1, 9), window=st.integers(10, 1000), gap=st.integers(0, 2500), cost=st.integers(1, 9)
)
def test_what_is_given_back_later_leaves_no_more_than_a_fresh_counter(
    make: Any, quota: int, window: int, gap: int, cost: int
) -> None:
    counter, fresh = make(quota, window), make(quota, window)
    cost, now = min(cost, quota), 1_000_000
    counter.add(now, cost)
    counter.give_back(now, cost)
    for later in (now, now + gap):
        assert counter.peek(later, 1).remaining == fresh.peek(later, 1).remaining == quota
    counter.add(now + gap, quota)
    assert counter.peek(now + gap, 1).retry_after > 0


@given(
    quota=st.integers(2, 9), window=st.integers(10, 1000), gap=st.integers(0, 2500), cost=st.integers(1, 9)
)
def test_a_hit_given_back_in_the_next_window_fades_no_more(
    quota: int, window: int, gap: int, cost: int
) -> None:
    counter, cost, now = SlidingWindow(quota, window), min(cost, quota - 1), 1_000_000
    counter.add(now, cost)
    counter.add(now + gap, 1)
    counter.give_back(now, cost)
    twin = SlidingWindow(quota, window)
    twin.add(now + gap, 1)
    assert counter.peek(now + gap, 1) == twin.peek(now + gap, 1)


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
@given(
    rows=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 500)), min_size=1, max_size=4),
    steps=st.lists(st.tuples(gaps, st.integers(1, 5), st.booleans()), max_size=40),
)
def test_limits_counted_together_equal_limits_counted_apart(strategy: Any, rows: Any, steps: Any) -> None:
    """The counters that stand for several limits, and their short ways, against one counter for each limit."""
    limits = [Limit(f"l{number}", quota, window / 1e6) for number, (quota, window) in enumerate(rows)]
    together, apart = counter_for(limits, strategy), [counter_for([limit], strategy) for limit in limits]
    now, most, taken = 1_000_000, min(quota for quota, _ in rows), []
    for gap, wanted, back in steps:
        now += gap
        cost = min(wanted, most)
        seen = [counter.peek(now, cost) for counter in apart]
        expected = [tuple(look[column][0] for look in seen) for column in range(3)]
        assert [tuple(column) for column in together.peek(now, cost)[:3]] == expected
        count = together.hit(now, cost)
        if any(expected[2]):
            assert [tuple(column) for column in count[:3]] == expected
            assert count.taken_at is None
        else:
            resets = [counter.add(now, cost)[0] for counter in apart]
            assert count[:4] == ([left - cost for left in expected[0]], resets, [0] * len(rows), now)
            taken.append((now, cost))
        if back and taken:
            at, cost = taken.pop()
            for counter in (together, *apart):
                counter.give_back(at, cost)
