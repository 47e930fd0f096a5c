from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mks_hardening._core.breaker import BreakerState, CircuitBreaker
from mks_hardening.events import BreakerChanged, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    add_observer(seen.append)
    yield seen
    remove_observer(seen.append)


FATAL = ["refused", "auth", "loading", "protocol", "clients"]
HICCUPS = ["timeout", "reset", "busy", "slow"]
ANSWERS = ["readonly", "oom", "error"]


@pytest.mark.parametrize("reason", FATAL)
def test_one_refusal_opens(reason: str) -> None:
    state = BreakerState()
    state.failed(0.0, reason)
    assert (state.phase, state.reason) == ("open", reason)


@pytest.mark.parametrize("reason", HICCUPS)
def test_the_third_hiccup_in_a_row_opens(reason: str) -> None:
    state = BreakerState(failure_threshold=3)
    phases = []
    for _ in range(3):
        state.failed(0.0, reason)
        phases.append(state.phase)
    assert phases == ["closed", "closed", "open"]


def test_an_answer_between_hiccups_starts_the_count_again() -> None:
    state = BreakerState(failure_threshold=2)
    for _ in range(5):
        state.failed(0.0, "timeout")
        state.succeeded(0.0, 0.001)
    assert state.phase == "closed"


@pytest.mark.parametrize("reason", ANSWERS)
def test_answers_about_one_command_never_open(reason: str) -> None:
    state = BreakerState(failure_threshold=1)
    for _ in range(10):
        state.failed(0.0, reason)
    assert state.phase == "closed"


def test_slow_answers_count() -> None:
    state = BreakerState(failure_threshold=2, slow_after=0.1)
    state.succeeded(0.0, 0.2)
    state.succeeded(0.0, 0.05)
    state.succeeded(0.0, 0.1)
    assert state.phase == "closed"
    state.succeeded(0.0, 0.3)
    assert (state.phase, state.reason) == ("open", "slow")


def test_one_trial_at_a_time_and_not_more_often_than_the_recovery_time() -> None:
    state = BreakerState(recovery_timeout=1.0)
    state.failed(10.0, "refused")
    assert not state.begin_trial(10.9)
    assert state.begin_trial(11.0)
    assert not state.begin_trial(11.0)
    state.failed(11.2, "timeout")
    assert state.phase == "open"
    assert not state.begin_trial(11.9)
    assert state.begin_trial(12.0)
    state.succeeded(12.1, 0.01)
    assert state.phase == "closed"


class BreakerMachine(RuleBasedStateMachine):
    """The state against a model that only counts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = BreakerState(failure_threshold=3, recovery_timeout=1.0)
        self.in_a_row = 0
        self.open = False
        self.trial = False
        self.last_trial: float | None = None

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def answer(self) -> None:
        self.state.succeeded(self.now, 0.0)
        self.in_a_row, self.open, self.trial = 0, False, False

    @precondition(lambda self: not self.open or self.trial)
    @rule(reason=st.sampled_from(FATAL + HICCUPS))
    def failure(self, reason: str) -> None:
        self.state.failed(self.now, reason)
        self.in_a_row += 1
        if reason in FATAL or self.in_a_row >= 3 or self.trial:
            self.open, self.trial = True, False

    @rule()
    def try_to_begin(self) -> None:
        granted = self.state.begin_trial(self.now)
        if granted:
            assert self.open
            assert not self.trial
            assert self.last_trial is None or self.now - self.last_trial >= 1.0 or not self.open
            self.trial, self.last_trial = True, self.now

    @invariant()
    def phases_agree(self) -> None:
        expected = "half_open" if self.trial else "open" if self.open else "closed"
        assert self.state.phase == expected


BreakerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestBreakerMachine = BreakerMachine.TestCase


def test_an_open_breaker_refuses_and_says_when_to_come_back() -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("mail", clock=clock, recovery_timeout=2.0)
    breaker.check()
    breaker.failed("refused")
    with pytest.raises(BackendUnavailableError) as caught:
        breaker.check("SEND")
    error = caught.value
    assert (error.backend, error.reason, error.operation, error.sent) == ("mail", "open", "SEND", False)
    assert error.retry_after == pytest.approx(2.0)


def test_without_a_probe_one_caller_at_a_time_is_the_trial() -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("mail", clock=clock)
    breaker.failed("refused")
    clock.advance(1.0)
    breaker.check()
    with pytest.raises(BackendUnavailableError):
        breaker.check()
    breaker.succeeded()
    breaker.check()


def test_with_a_probe_callers_are_never_the_trial() -> None:
    clock = FrozenClock()
    answers: list[Exception | None] = [TimeoutError(), BackendUnavailableError("redis", "loading"), None]

    def probe() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    breaker = CircuitBreaker("redis", probe=probe, clock=clock)
    breaker._state.failed(clock.monotonic(), "refused")  # without waking the background thread
    for expected in ("open", "open", "closed"):
        clock.advance(1.0)
        with pytest.raises(BackendUnavailableError):
            breaker.check()
        breaker.run_probe()
        assert breaker.phase == expected
    assert answers == []
    assert breaker.run_probe() is None


def test_the_background_probe_closes_it() -> None:
    closed = threading.Event()
    breaker = CircuitBreaker("redis", probe=closed.set, recovery_timeout=0.01)
    breaker.failed("refused")
    assert closed.wait(5)
    for _ in range(500):
        if breaker.phase == "closed":
            break
        threading.Event().wait(0.01)
    assert breaker.phase == "closed"


def test_one_event_and_one_record_for_each_change(
    events: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker("mail", clock=FrozenClock())
    with caplog.at_level(logging.WARNING, logger="mks_hardening.breaker"):
        for _ in range(5):
            breaker.failed("timeout")
        for _ in range(5):
            breaker.succeeded(0.01)
    assert [event for event in events if isinstance(event, BreakerChanged)] == [
        BreakerChanged("mail", "closed", "open", "timeout"),
        BreakerChanged("mail", "open", "closed", ""),
    ]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_closed() -> None:
    breaker = CircuitBreaker("redis", clock=FrozenClock())
    breaker.failed("refused")
    with breaker._lock:  # held at the moment of the fork
        child = os.fork()
        if child == 0:
            breaker.check()
            breaker.failed("timeout")
            os._exit(0 if breaker.phase == "closed" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert breaker.phase == "open"


def _hammer(action: Callable[[], object], threads: int = 8, times: int = 300) -> None:
    def run() -> None:
        for _ in range(times):
            action()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_many_threads_get_one_trial_together() -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("mail", clock=clock)
    breaker.failed("refused")
    clock.advance(1.0)
    trials: list[int] = []

    def knock() -> None:
        try:
            breaker.check()
        except BackendUnavailableError:
            return
        trials.append(1)

    _hammer(knock)
    assert trials == [1]
