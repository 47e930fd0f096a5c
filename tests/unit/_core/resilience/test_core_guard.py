"""Who is to blame for a failed call, and what it costs the request."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening._core.backend.redis_errors import reason_of
from mks_hardening._core.resilience import guard as module
from mks_hardening._core.resilience.breaker import CircuitBreaker
from mks_hardening._core.resilience.budget import Budget, request_budget
from mks_hardening._core.resilience.guard import CallGuard, GuardedCall
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FrozenClock:
    frozen = FrozenClock()
    monkeypatch.setattr(module, "SYSTEM_CLOCK", frozen)
    return frozen


def make(clock: FrozenClock, **options: Any) -> CallGuard:
    breaker = CircuitBreaker("store", endpoint="db1:6379", clock=clock)
    return CallGuard(
        "store",
        breaker=breaker,
        **{"reason_of": reason_of, "budget": 0.1, "fair_share": lambda: 0.05, **options},
    )


def call(guard: CallGuard, **options: Any) -> GuardedCall:
    return guard.begin("GET", **{"idempotent": True, **options})


def fail(guard: CallGuard, error: Exception, *, begin: dict[str, Any] | None = None, **options: Any) -> str:
    begun = call(guard, **(begin or {}))
    try:
        with pytest.raises(BackendUnavailableError) as caught:
            while True:
                begun.failed(error, **options)
    finally:
        begun.end()
    return caught.value.reason


@pytest.mark.parametrize(("budget", "phase"), [(0.1, "open"), (0.05, "open"), (0.049, "closed")])
def test_a_server_that_had_less_than_its_share_is_not_to_blame(
    clock: FrozenClock, budget: float, phase: str
) -> None:
    guard = make(clock, budget=budget)
    for _ in range(3):
        assert fail(guard, TimeoutError()) == "timeout"
    assert guard.breaker.phase == phase


def test_a_server_is_not_to_blame_after_a_wait_for_a_connection_of_our_own(clock: FrozenClock) -> None:
    guard = make(clock)
    for _ in range(3):
        begun = call(guard)
        assert begun.failed(MaxConnectionsError()) == "pool"
        clock.advance(0.1)
        with pytest.raises(BackendUnavailableError):
            begun.failed(TimeoutError())
        begun.end()
    assert guard.breaker.phase == "closed"


def test_a_refusal_needs_no_share(clock: FrozenClock) -> None:
    guard = make(clock, budget=0.001)
    assert fail(guard, ConnectionRefusedError()) == "refused"
    assert guard.breaker.phase == "open"


@pytest.mark.parametrize(("budget", "phase"), [(0.05, "open"), (0.049, "closed")])
def test_a_handshake_that_took_all_of_the_time_needs_its_share(
    clock: FrozenClock, budget: float, phase: str
) -> None:
    guard = make(clock, budget=budget, reason_of=lambda _: "tls")
    phases = []
    for _ in range(3):
        begun = call(guard)
        clock.advance(0.1)
        with pytest.raises(BackendUnavailableError) as caught:
            begun.failed(TimeoutError())
        begun.end()
        assert caught.value.reason == "tls"
        phases.append(guard.breaker.phase)
    assert phases == ["closed", "closed", phase]  # as many as of any time-out


def test_calls_side_by_side_are_one_hiccup(clock: FrozenClock) -> None:
    guard = make(clock)
    calls = [call(guard) for _ in range(8)]
    clock.advance(0.1)
    for begun in calls:
        with pytest.raises(BackendUnavailableError):
            begun.failed(TimeoutError())
        begun.end()
    assert guard.breaker.phase == "closed"


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (ValueError("Invalid file object: None"), True),
        (AttributeError("'NoneType' object has no attribute 'fileno'"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), False),
    ],
    ids=repr,
)
def test_a_client_closed_during_a_call_ends_it_whatever_the_error(
    clock: FrozenClock, error: Exception, sent: bool
) -> None:
    guard = make(clock)
    begun = call(guard)
    guard.closed = True
    with pytest.raises(BackendUnavailableError) as caught:
        begun.failed(error)
    begun.end()
    assert (caught.value.reason, caught.value.sent, caught.value.__cause__) == ("closed", sent, error)
    assert guard.breaker.phase == "closed"


def test_a_foreign_exception_neither_counts_nor_clears(clock: FrozenClock) -> None:
    guard = make(clock)
    for number in range(3):
        assert guard.breaker.phase == "closed", number
        fail(guard, TimeoutError())
        begun = call(guard) if number < 2 else None
        if begun is not None:
            with pytest.raises(KeyError):
                begun.failed(KeyError("a"))
            begun.end()
    assert guard.breaker.phase == "open"


def test_a_trial_that_is_killed_makes_room_for_the_next(clock: FrozenClock) -> None:
    guard = make(clock)
    fail(guard, ConnectionRefusedError())
    clock.advance(1.0)
    begun = call(guard)  # the trial; KeyboardInterrupt, cancellation: nothing is reported
    begun.end()
    clock.advance(1.0)
    again = call(guard)
    again.succeeded()
    again.end()
    assert guard.breaker.phase == "closed"


def test_a_trial_without_budget_makes_room_too(clock: FrozenClock) -> None:
    guard = make(clock)
    fail(guard, ConnectionRefusedError())
    clock.advance(1.0)
    with request_budget(0.0), pytest.raises(BackendUnavailableError, match="budget"):
        call(guard)
    clock.advance(1.0)
    call(guard).succeeded()
    assert guard.breaker.phase == "closed"


class MaxConnectionsError(ConnectionError):
    """As redis-py calls it."""


def test_waiting_for_a_connection_of_our_own_goes_on_until_the_deadline_and_counts_for_nothing(
    clock: FrozenClock,
) -> None:
    guard = make(clock)
    begun = call(guard, idempotent=False)
    for _ in range(20):
        assert begun.failed(MaxConnectionsError()) == "pool"
    clock.advance(0.1)
    with pytest.raises(BackendUnavailableError) as caught:
        begun.failed(MaxConnectionsError())
    assert (caught.value.reason, caught.value.sent) == ("pool", False)
    assert guard.breaker.phase == "closed"


@pytest.mark.parametrize(("paced", "phase"), [(True, "closed"), (False, "open")])
def test_a_late_answer_counts_where_the_client_keeps_no_deadlines(
    clock: FrozenClock, *, paced: bool, phase: str
) -> None:
    guard = make(clock, paced=paced)
    for _ in range(3):
        begun = call(guard)
        clock.advance(0.1)
        begun.succeeded()
        begun.end()
    assert guard.breaker.phase == phase


@pytest.mark.parametrize("why", ["closed", "budget", "open"])
def test_what_is_refused_was_certainly_not_sent(clock: FrozenClock, why: str) -> None:
    guard = make(clock)
    if why == "closed":
        guard.closed = True
    if why == "open":
        guard.breaker.failed("refused")
    with request_budget(0.0 if why == "budget" else 1.0), pytest.raises(BackendUnavailableError) as caught:
        guard.begin("HGET", idempotent=True)
    error = caught.value
    assert (error.reason, error.operation, error.sent) == (why, "HGET", False)
    assert error.backend == "store"


def test_the_smaller_budget_holds(clock: FrozenClock) -> None:
    guard = make(clock, budget=0.1)
    assert call(guard).allowed == 0.1
    with request_budget(0.04, clock=clock):
        begun = call(guard)
        assert begun.allowed == pytest.approx(0.04)
        assert begun.deadline == pytest.approx(clock.monotonic() + 0.04)
    with request_budget(4.0, clock=clock):
        assert call(guard).allowed == 0.1


def test_a_slow_answer_is_to_blame_on_the_whole(clock: FrozenClock) -> None:
    guard = make(clock, paced=False)
    part = CircuitBreaker("store", endpoint="node1", clock=clock)
    for _ in range(3):
        begun = call(guard, shard=lambda: part)
        clock.advance(0.0999)
        begun.succeeded()
        begun = call(guard, shard=lambda: part)
        clock.advance(0.2)
        begun.succeeded()
    assert (guard.breaker.phase, part.phase) == ("closed", "closed")
    for _ in range(2):  # with the last one three in a row
        begun = call(guard, shard=lambda: part)
        clock.advance(0.2)
        begun.succeeded()
    assert (guard.breaker.phase, guard.breaker._state.reason, part.phase) == ("open", "slow", "closed")


# --- parts of an endpoint --------------------------------------------------------------------


def test_a_part_is_to_blame_for_itself_and_the_whole_for_all(clock: FrozenClock) -> None:
    guard = make(clock)
    part = CircuitBreaker("store", endpoint="node1", clock=clock)
    other = CircuitBreaker("store", endpoint="node2", clock=clock)
    fail(guard, ConnectionRefusedError(), begin={"shard": lambda: part})
    assert (guard.breaker.phase, part.phase) == ("closed", "open")
    begun = call(guard, shard=lambda: other)
    begun.succeeded()
    assert (guard.breaker.phase, part.phase, other.phase) == ("closed", "open", "closed")
    fail(guard, ConnectionRefusedError(), begin={"shard": lambda: other}, whole=True)
    assert (guard.breaker.phase, other.phase) == ("open", "closed")


def test_an_answer_clears_the_count_of_its_part(clock: FrozenClock) -> None:
    guard = make(clock)
    part = CircuitBreaker("store", endpoint="node1", clock=clock)
    for _ in range(5):
        fail(guard, TimeoutError(), begin={"shard": lambda: part})
        fail(guard, TimeoutError(), begin={"shard": lambda: part})
        call(guard, shard=lambda: part).succeeded()
    assert part.phase == "closed"


def test_the_absence_of_all_that_is_found_after_the_deadline_is_a_time_out(clock: FrozenClock) -> None:
    guard = make(clock)
    part = CircuitBreaker("store", endpoint="node1", clock=clock)
    for phase in ("closed", "closed", "open"):
        begun = call(guard, shard=lambda: part)
        clock.advance(0.1)
        with pytest.raises(BackendUnavailableError) as caught:
            begun.failed(ConnectionRefusedError(), whole=True)
        assert caught.value.reason == "timeout"
        assert (guard.breaker.phase, part.phase) == ("closed", phase)


def test_what_one_of_several_tries_has_sent_was_sent(clock: FrozenClock) -> None:
    begun = call(make(clock))
    assert begun.failed(ConnectionResetError()) == "reset"
    with pytest.raises(BackendUnavailableError) as caught:
        while True:
            begun.failed(ConnectionRefusedError())
    assert (caught.value.reason, caught.value.sent) == ("refused", True)


# --- the budget of a request -----------------------------------------------------------------


class Loop:
    """Stands in for the counter of an event loop."""

    def __init__(self) -> None:
        self.away = 100.0
        self.waiting = 0

    def lost(self) -> float:
        return self.away

    def enter(self, seconds: float) -> None:
        self.waiting += 1

    def leave(self) -> None:
        self.waiting -= 1


def test_calls_side_by_side_cost_the_time_that_passes(clock: FrozenClock) -> None:
    guard = make(clock, budget=10.0)
    with request_budget(1.0, clock=clock) as budget:
        first = call(guard)
        clock.advance(0.1)
        second = call(guard)
        assert budget.remaining == pytest.approx(0.9)
        clock.advance(0.1)
        first.end()
        clock.advance(0.1)
        assert budget.remaining == pytest.approx(0.7)
        second.end()
        clock.advance(5)
        assert budget.remaining == pytest.approx(0.7)
        third = call(guard)
        assert third.allowed == pytest.approx(0.7)
        third.end()
        third.end()
        assert budget.remaining == pytest.approx(0.7)


def test_what_the_loop_did_elsewhere_is_neither_charged_nor_counted_as_waiting(clock: FrozenClock) -> None:
    guard = make(clock, budget=10.0)
    loop = Loop()
    with request_budget(1.0, clock=clock) as budget:
        begun = call(guard, own_time=loop)
        assert loop.waiting == 1
        assert begun.deadline == pytest.approx(clock.monotonic() + 1.0)
        clock.advance(0.5)
        loop.away += 0.4
        assert begun.deadline == pytest.approx(clock.monotonic() + 0.9)
        beside = call(guard, own_time=loop)
        assert beside.allowed == pytest.approx(0.9)
        beside.end()
        begun.end()
        assert loop.waiting == 0
        assert budget.remaining == pytest.approx(0.9)


def test_a_plain_call_inside_an_asynchronous_one_is_charged_in_full(clock: FrozenClock) -> None:
    budget = Budget(1.0, clock=clock)
    outer, inner = object(), object()
    budget.begin(outer, clock.monotonic(), lost=50.0)
    budget.begin(inner, clock.monotonic())
    clock.advance(0.2)
    budget.end(outer, clock.monotonic(), lost=50.1)
    budget.end(inner, clock.monotonic())
    assert budget.remaining == pytest.approx(0.8)
