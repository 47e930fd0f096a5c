from __future__ import annotations

import contextvars
import socket
from typing import Any

import pytest

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_errors import reason_of
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.resilience.breaker import CircuitBreaker
from mks_hardening._core.resilience.budget import Budget, current_budget, request_budget, start_request_budget
from mks_hardening._core.resilience.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening._core.resilience.guard import CallGuard
from mks_hardening.events import BackendFailed, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock


def test_only_time_inside_calls_counts() -> None:
    clock = FrozenClock()
    budget = Budget(0.1, clock=clock)
    clock.advance(5)
    assert budget.remaining == pytest.approx(0.1)
    for spent, left in ((0.04, 0.06), (1, 0.0)):
        budget.begin("call", clock.monotonic())
        clock.advance(spent)
        budget.end("call", clock.monotonic())
        clock.advance(5)
        assert budget.remaining == pytest.approx(left)


def test_a_request_has_one_budget_and_gives_the_former_back() -> None:
    assert current_budget() is None
    with request_budget(1.0) as outer:
        with request_budget(0.5) as inner:
            assert current_budget() is inner
        assert current_budget() is outer
    assert current_budget() is None


def test_a_budget_started_in_a_context_ends_with_it() -> None:
    context = contextvars.copy_context()
    context.run(start_request_budget, 0.2)
    assert current_budget() is None
    inside = context.run(current_budget)
    assert inside is not None
    assert inside.remaining == pytest.approx(0.2)


def guard(**options: Any) -> CallGuard:
    breaker = CircuitBreaker("store", clock=FrozenClock())
    return CallGuard("store", breaker=breaker, reason_of=reason_of, **{"budget": 0.1, **options})


@pytest.mark.parametrize(
    ("error", "idempotent", "tries", "reason"),
    [
        (ConnectionRefusedError(), False, 3, "refused"),
        (ConnectionResetError(), False, 1, "reset"),
        (ConnectionResetError(), True, 3, "reset"),
        (TimeoutError(), True, 1, "timeout"),
    ],
)
def test_what_is_tried_again(error: Exception, *, idempotent: bool, tries: int, reason: str) -> None:
    call = guard(budget=30).begin("SET", idempotent=idempotent)
    count = 0
    with pytest.raises(BackendUnavailableError) as caught:
        while True:
            count += 1
            call.failed(error)
    assert (count, caught.value.reason) == (tries, reason)
    assert caught.value.sent is (reason != "refused")
    assert caught.value.__cause__ is error


def test_foreign_errors_come_out_as_they_are() -> None:
    call = guard().begin("SET", idempotent=True)
    with pytest.raises(KeyError):
        call.failed(KeyError("programming error"))


def test_no_try_after_the_deadline() -> None:
    call = guard(budget=0.000001).begin("GET", idempotent=True)
    with pytest.raises(BackendUnavailableError):
        call.failed(ConnectionResetError())


def test_a_used_up_budget_sends_nothing() -> None:
    with request_budget(0.0), pytest.raises(BackendUnavailableError) as caught:
        guard().begin("GET", idempotent=True)
    assert (caught.value.reason, caught.value.sent) == ("budget", False)


def test_a_call_takes_from_the_budget_of_the_request() -> None:
    with request_budget(10.0) as budget:
        call = guard(budget=30).begin("GET", idempotent=True)
        assert call.deadline - SYSTEM_CLOCK.monotonic() <= 10.0
        call.succeeded()
        assert budget.remaining < 10.0


def test_closed_says_so() -> None:
    rules = guard()
    rules.closed = True
    with pytest.raises(BackendUnavailableError, match="closed"):
        rules.begin("GET", idempotent=True)


def test_a_failure_is_an_event() -> None:
    seen: list[object] = []
    add_observer(seen.append)
    try:
        with pytest.raises(BackendUnavailableError):
            guard().begin("GET", idempotent=False).failed(TimeoutError())
    finally:
        remove_observer(seen.append)
    assert BackendFailed("store", "GET", "timeout") in seen


class Interrupted:
    """Below its first command a signal handler or a finalizer makes another call."""

    def __init__(self) -> None:
        self.seen: list[float | None] = []
        self.client = RedisClient(self, store_budget=5)

    def execute_command(self, *args: Any, **options: Any) -> bytes:
        if args[0] == "OUTER":
            self.seen.append(call_deadline.at)
            with RedisClient(self.client, store_budget=1) as inner:
                inner.call("INNER")
        self.seen.append(call_deadline.at)
        return b"OK"


def test_a_call_inside_a_call_leaves_the_deadline_of_the_outer_one() -> None:
    interrupted = Interrupted()
    interrupted.client.call("OUTER")
    before, inner, after = interrupted.seen
    assert before == after is not None
    assert inner is not None
    assert inner < before
    assert call_deadline.at is None
    interrupted.client.close()


def test_the_whole_exchange_shares_one_deadline() -> None:
    left, right = socket.socketpair()
    with left, right:
        limited = DeadlineSocket(left)
        call_deadline.at = SYSTEM_CLOCK.monotonic() + 0.05
        try:
            received = 0
            with pytest.raises(TimeoutError):
                while True:
                    right.sendall(b"x")  # a trickle that never ends
                    received += limited.recv_into(bytearray(1))
            assert received > 1
            with pytest.raises(TimeoutError):
                limited.sendall(b"x")
        finally:
            call_deadline.at = None
        limited.settimeout(1)
        right.sendall(b"ok")
        assert limited.recv(3).endswith(b"ok")
