from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mks_hardening._core.resilience.breaker import BreakerState, CircuitBreaker
from mks_hardening.events import BreakerChanged, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    add_observer(seen.append)
    yield seen
    remove_observer(seen.append)


def seen_events(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was said of the crane: the prober of an earlier test may still have its last word to say."""
    return [record for record in caplog.records if record.__dict__.get("backend") == "crane"]


FATAL = ["refused", "auth", "loading", "protocol", "clients", "certificate", "tls"]
HICCUPS = ["timeout", "reset", "busy", "slow"]
ANSWERS = ["readonly", "oom", "denied", "error"]
OURS = ["budget", "pool", "open", "closed"]


@pytest.mark.parametrize("reason", FATAL)
def test_one_refusal_opens(reason: str) -> None:
    state = BreakerState()
    state.failed(0.0, reason, began=0.0)
    assert (state.phase, state.reason) == ("open", reason)


@pytest.mark.parametrize("reason", HICCUPS)
def test_the_third_hiccup_in_a_row_opens(reason: str) -> None:
    state = BreakerState(failure_threshold=3)
    phases = []
    for _ in range(3):
        state.failed(0.0, reason, began=0.0)
        phases.append(state.phase)
    assert phases == ["closed", "closed", "open"]


def test_an_answer_between_hiccups_starts_the_count_again() -> None:
    state = BreakerState(failure_threshold=2)
    for _ in range(5):
        state.failed(0.0, "timeout", began=0.0)
        state.succeeded(0.0)
    assert state.phase == "closed"


@pytest.mark.parametrize("reason", ANSWERS)
def test_answers_about_one_command_never_open(reason: str) -> None:
    state = BreakerState(failure_threshold=1)
    for _ in range(10):
        state.failed(0.0, reason, began=0.0)
    assert state.phase == "closed"


@pytest.mark.parametrize("reason", [*FATAL, *HICCUPS, *ANSWERS, *OURS])
def test_rejected_writes_are_logged_once_a_minute(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("crane", endpoint="harbour", clock=clock, failure_threshold=1000)
    wanted: list[str] = []
    for seconds, is_logged in ((0, True), (0, False), (59, False), (1, True), (1, False)):
        clock.advance(seconds)
        breaker.failed(reason)
        breaker.succeeded()  # a read
        if is_logged and reason in ("readonly", "oom"):
            wanted.append(f"crane at harbour rejects writes ({reason})")
        assert [record.message for record in seen_events(caplog) if "writes" in record.message] == wanted


def test_an_answer_about_one_command_is_an_answer() -> None:
    state = BreakerState(failure_threshold=2)
    for _ in range(5):
        state.failed(0.0, "timeout", began=0.0)
        state.failed(0.0, "error", began=0.0)
    assert state.phase == "closed"


@pytest.mark.parametrize("reason", OURS)
def test_what_is_our_own_doing_neither_counts_nor_clears(reason: str) -> None:
    state = BreakerState(failure_threshold=2)
    state.failed(0.0, "timeout", began=0.0)
    for _ in range(10):
        state.failed(0.0, reason, began=0.0)
        state.abandoned()
    assert state.phase == "closed"
    state.failed(0.0, "timeout", began=0.0)
    assert state.phase == "open"


def test_calls_side_by_side_in_one_pause_are_one_hiccup() -> None:
    state = BreakerState(failure_threshold=3)
    for ended in (1.00, 1.01, 1.02, 1.05, 1.05, 1.06, 1.07, 1.08):
        state.failed(ended, "timeout", began=0.95)
    assert state.phase == "closed"
    state.failed(1.2, "timeout", began=1.1)
    assert state.phase == "closed"
    state.failed(1.3, "timeout", began=1.2)
    assert state.phase == "open"


def half_open() -> BreakerState:
    state = BreakerState(recovery_timeout=1.0)
    state.failed(0.0, "refused", began=0.0)
    assert state.begin_trial(1.0)
    return state


@pytest.mark.parametrize("reason", ANSWERS)
def test_a_trial_that_is_answered_closes_whatever_the_answer(reason: str) -> None:
    state = half_open()
    state.failed(1.1, reason, began=1.0)
    assert (state.phase, state.reason) == ("closed", "")


@pytest.mark.parametrize("reason", [*OURS, None])
def test_a_trial_that_never_reached_the_server_leaves_it_open(reason: str | None) -> None:
    state = half_open()
    if reason is None:
        state.abandoned()
    else:
        state.failed(1.1, reason, began=1.0)
    assert (state.phase, state.reason) == ("open", "refused")
    assert not state.begin_trial(1.9)
    assert state.begin_trial(2.0)


@pytest.mark.parametrize("reason", [*HICCUPS, *FATAL])
def test_one_failed_trial_opens_again(reason: str) -> None:
    state = half_open()
    state.failed(1.1, reason, began=1.0)
    assert (state.phase, state.reason) == ("open", reason)


def test_a_trial_that_is_never_reported_makes_room_for_another() -> None:
    state = half_open()
    assert not state.begin_trial(10.9)
    assert state.begin_trial(11.0)


def test_an_answer_to_a_call_as_old_as_the_outage_proves_nothing() -> None:
    state = BreakerState()
    state.failed(1.0, "refused", began=0.5)
    state.succeeded(1.1, began=1.0)
    assert state.phase == "open"
    state.succeeded(1.2, began=1.01)
    assert state.phase == "closed"


def test_one_trial_at_a_time_and_not_more_often_than_the_recovery_time() -> None:
    state = BreakerState(recovery_timeout=1.0)
    state.failed(10.0, "refused", began=10.0)
    assert not state.begin_trial(10.9)
    assert state.begin_trial(11.0)
    assert not state.begin_trial(11.0)
    state.failed(11.2, "timeout", began=11.0)
    assert state.phase == "open"
    assert not state.begin_trial(11.9)
    assert state.begin_trial(12.0)
    state.succeeded(12.1)
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
        self.closed_at: float | None = None

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def answer(self) -> None:
        self.state.succeeded(self.now)
        if self.open:
            self.closed_at = self.now
        self.in_a_row, self.open, self.trial = 0, False, False

    @precondition(lambda self: self.closed_at is not None and not self.open)
    @rule(reason=st.sampled_from(FATAL + HICCUPS), earlier=st.floats(0.001, 5))
    def failure_of_a_call_from_before_it_closed(self, reason: str, earlier: float) -> None:
        assert self.closed_at is not None
        self.state.failed(self.now, reason, began=self.closed_at - earlier)

    @precondition(lambda self: not self.open or self.trial)
    @rule(reason=st.sampled_from(FATAL + HICCUPS))
    def failure(self, reason: str) -> None:
        self.state.failed(self.now, reason, began=self.now)
        self.in_a_row += 1
        if reason in FATAL or self.in_a_row >= 3 or self.trial:
            self.open, self.trial = True, False

    @rule()
    def try_to_begin(self) -> None:
        granted = self.state.begin_trial(self.now)
        if granted:
            assert self.open
            # One that was never reported makes room after ten seconds.
            assert self.last_trial is None or self.now >= self.last_trial + (10.0 if self.trial else 1.0)
            self.trial, self.last_trial = True, self.now

    @invariant()
    def phases_agree(self) -> None:
        expected = "half_open" if self.trial else "open" if self.open else "closed"
        assert self.state.phase == expected


BreakerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestBreakerMachine = BreakerMachine.TestCase


def test_an_answer_from_before_it_opened_does_not_close_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("crane", clock=clock)
    before = clock.monotonic()
    clock.advance(0.01)
    breaker.failed("refused", began=clock.monotonic())
    breaker.succeeded(began=before)  # its answer had come; the thread was late to say so
    assert breaker.phase == "open"
    assert [record.message for record in seen_events(caplog)] == ["crane is unavailable (refused)"]
    clock.advance(5)
    breaker.check()  # the trial
    breaker.succeeded(began=before)
    assert breaker.phase == "half_open"
    breaker.succeeded(began=clock.monotonic())
    assert breaker.phase == "closed"


@pytest.mark.parametrize("reason", [*FATAL, *HICCUPS])
def test_a_failure_from_before_it_closed_does_not_open_it_again(
    reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("crane", clock=clock, failure_threshold=1)
    before = clock.monotonic()
    clock.advance(0.01)
    breaker.failed("refused")
    clock.advance(5)
    breaker.check()  # the trial
    breaker.succeeded(began=clock.monotonic())
    breaker.failed(reason, began=before)  # it met the outage that has ended; its thread was late to say so
    assert breaker.phase == "closed"
    assert not breaker.doubted
    assert [record.levelname for record in seen_events(caplog)] == ["ERROR", "WARNING"]
    breaker.failed(reason, began=clock.monotonic())
    assert breaker.phase == "open"


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
    breaker._state.failed(clock.monotonic(), "refused", began=0.0)  # without waking the background thread
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
    breaker = CircuitBreaker("crane", endpoint="db1:6379", clock=FrozenClock())
    with caplog.at_level(logging.WARNING, logger="mks_hardening.breaker"):
        for _ in range(5):
            breaker.failed("timeout")
        for _ in range(5):
            breaker.succeeded()
    assert [event for event in events if isinstance(event, BreakerChanged) and event.backend == "crane"] == [
        BreakerChanged("crane", "closed", "open", "timeout", "db1:6379"),
        BreakerChanged("crane", "open", "closed", "", "db1:6379"),
    ]
    assert [(record.levelname, record.getMessage()) for record in seen_events(caplog)] == [
        ("ERROR", "crane at db1:6379 is unavailable (timeout)"),
        ("WARNING", "crane at db1:6379 is available again"),
    ]


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


# --- supervision: the prober can neither die nor be forgotten --------------------------------


def _eventually(question: Callable[[], bool]) -> bool:
    return any(question() or threading.Event().wait(0.01) for _ in range(500)) or question()


def _open_again(breaker: CircuitBreaker) -> bool:
    try:
        breaker.check()
    except BackendUnavailableError:
        return False
    return True


class PlantedFilter(logging.Filter):
    """Raises at a record that holds a text."""

    def __init__(self, text: str, error: BaseException) -> None:
        super().__init__()
        self.text = text
        self.error = error

    def filter(self, record: logging.LogRecord) -> bool:
        if self.text in record.getMessage():
            raise self.error
        return True


@pytest.fixture
def plant(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str, BaseException], None]]:
    log = logging.getLogger("mks_hardening.breaker")
    planted: list[logging.Filter] = []

    def put(text: str, error: BaseException) -> None:
        planted.append(PlantedFilter(text, error))
        log.addFilter(planted[-1])

    yield put
    for item in planted:
        log.removeFilter(item)


def test_a_thread_that_cannot_start_is_tried_again_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = CircuitBreaker("redis", probe=lambda: None, recovery_timeout=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot_start)
        breaker.failed("refused")
        assert not _open_again(breaker)
    assert _eventually(lambda: _open_again(breaker))


def _cannot_start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_log_filter_that_raises_loses_no_probe(plant: Callable[[str, BaseException], None]) -> None:
    plant("is unavailable", ValueError("bad filter"))
    plant("is available again", ValueError("bad filter"))
    breaker = CircuitBreaker("redis", probe=lambda: None, recovery_timeout=0.001)
    for _ in range(3):  # more than one outage: the prober of the first has survived its last words
        breaker.failed("refused")
        assert _eventually(lambda: breaker.phase == "closed")


def test_an_abort_during_the_log_write_loses_no_probe(plant: Callable[[str, BaseException], None]) -> None:
    plant("is unavailable", KeyboardInterrupt())
    breaker = CircuitBreaker("redis", probe=lambda: None, recovery_timeout=0.001)
    with pytest.raises(KeyboardInterrupt):
        breaker.failed("refused")
    assert _eventually(lambda: breaker.phase == "closed")


@pytest.mark.filterwarnings("ignore:Exception in thread mks-breaker-probe")
def test_a_prober_that_is_killed_is_replaced_at_the_next_call() -> None:
    deaths = iter([SystemExit(), SystemExit()])

    def probe() -> None:
        for death in deaths:
            raise death

    breaker = CircuitBreaker("redis", probe=probe, recovery_timeout=0.001)
    breaker.failed("refused")
    assert _eventually(lambda: _open_again(breaker))
    assert next(deaths, None) is None


PLACES = ["log open", "log closed", "observer open", "observer closed", "probe"]
ERRORS = st.sampled_from([ValueError("planted"), KeyboardInterrupt(), SystemExit(), RuntimeError("planted")])


@given(
    starts=st.integers(0, 3),
    outages=st.lists(
        st.fixed_dictionaries({place: st.none() | ERRORS for place in PLACES}),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=100, deadline=None)
def test_whatever_breaks_around_it_it_closes_when_the_server_answers(
    starts: int, outages: list[dict[str, BaseException | None]]
) -> None:
    """Threads that do not start; log, observers and probe that raise or are aborted, in any order and number."""
    planted: dict[str, BaseException] = {}
    begun: list[Hand] = []

    def meet(place: str) -> None:
        if error := planted.pop(place, None):
            raise error

    class Hand:
        """A thread whose turn comes when the test says so."""

        def __init__(self, target: Callable[[], None], **_names: object) -> None:
            self.work, self.alive = target, False

        def start(self) -> None:
            nonlocal starts
            if starts:
                starts -= 1
                raise RuntimeError("can't start new thread")
            self.alive = True
            begun.append(self)

        def is_alive(self) -> bool:
            return self.alive

        def run(self) -> None:
            with suppress(BaseException):
                self.work()
            self.alive = False

    class Filter(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            meet(f"log {record.__dict__['breaker']}")
            return False

    def observer(event: object) -> None:
        if isinstance(event, BreakerChanged):
            meet(f"observer {event.after}")

    breaker = CircuitBreaker("redis", probe=lambda: meet("probe"), recovery_timeout=0.001)
    log, silent = logging.getLogger("mks_hardening.breaker"), Filter()
    log.addFilter(silent)
    add_observer(observer)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "Thread", Hand)
            for faults in outages:
                planted.update({place: error for place, error in faults.items() if error})
                with suppress(KeyboardInterrupt, SystemExit):
                    breaker.failed("refused")
                for _ in range(10):
                    while begun:
                        begun.pop().run()
                    if _open_again(breaker):
                        break
                assert breaker.phase == "closed"
                planted.clear()
    finally:
        remove_observer(observer)
        log.removeFilter(silent)


def test_one_slow_endpoint_does_not_delay_another() -> None:
    hold = threading.Event()
    slow = CircuitBreaker("redis", endpoint="slow", probe=lambda: hold.wait(30), recovery_timeout=0.001)
    quick = CircuitBreaker("redis", endpoint="quick", probe=lambda: None, recovery_timeout=0.001)
    slow.failed("refused")
    assert _eventually(lambda: slow.phase == "half_open")
    quick.failed("refused")
    assert _eventually(lambda: quick.phase == "closed")
    assert slow.phase == "half_open"
    hold.set()
    assert _eventually(lambda: slow.phase == "closed")


def test_an_observer_that_makes_calls_itself_does_not_hang(events: list[Any]) -> None:
    breaker = CircuitBreaker("redis", clock=FrozenClock())
    inside: list[bool] = []

    def observer(_event: object) -> None:
        inside.append(_open_again(breaker))
        breaker.failed("timeout")

    add_observer(observer)
    try:
        breaker.failed("refused")
    finally:
        remove_observer(observer)
    assert inside == [False]


def test_a_finalizer_inside_the_lock_may_report() -> None:
    breaker = CircuitBreaker("redis", clock=FrozenClock())
    with breaker._lock:  # as the garbage collector or a signal handler finds it
        breaker.failed("timeout")
        breaker.succeeded()
    assert breaker.phase == "closed"


# --- what is said about a change -------------------------------------------------------------


def test_a_record_names_backend_endpoint_and_phase(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mks_hardening.breaker"):
        for endpoint in ("db1:6379", ""):
            breaker = CircuitBreaker("crane", endpoint=endpoint, clock=FrozenClock())
            breaker.failed("refused")
            breaker.succeeded()
    said = [
        (
            record.__dict__["backend"],
            record.__dict__["endpoint"],
            record.__dict__["breaker"],
            record.getMessage(),
        )
        for record in seen_events(caplog)
    ]
    assert said == [
        ("crane", "db1:6379", "open", "crane at db1:6379 is unavailable (refused)"),
        ("crane", "db1:6379", "closed", "crane at db1:6379 is available again"),
        ("crane", "", "open", "crane is unavailable (refused)"),
        ("crane", "", "closed", "crane is available again"),
    ]


def test_one_that_has_no_endpoint_says_so_in_the_event(events: list[Any]) -> None:
    CircuitBreaker("mail", clock=FrozenClock()).failed("auth")
    assert events[-1] == BreakerChanged("mail", "closed", "open", "auth", "")


def test_defaults_are_three_hiccups_and_one_second() -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("mail", clock=clock)
    breaker.failed("timeout")
    breaker.failed("timeout")
    assert breaker.phase == "closed"
    breaker.failed("timeout")
    with pytest.raises(BackendUnavailableError) as caught:
        breaker.check()
    assert caught.value.retry_after == pytest.approx(1.0)
    assert caught.value.operation == ""
    clock.advance(0.75)
    with pytest.raises(BackendUnavailableError) as caught:
        breaker.check()
    assert caught.value.retry_after == pytest.approx(0.25)
    clock.advance(0.25)
    breaker.check()
    clock.advance(5)
    with pytest.raises(BackendUnavailableError) as caught:
        breaker.check()
    assert caught.value.retry_after == 0.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendUnavailableError("redis", "auth"), "auth"),
        (TimeoutError(), "timeout"),
        (KeyError("a"), "timeout"),
    ],
)
def test_a_failed_probe_says_why(error: Exception, reason: str) -> None:
    clock = FrozenClock()

    def probe() -> None:
        raise error

    breaker = CircuitBreaker("redis", probe=probe, clock=clock, recovery_timeout=2.0)
    breaker._state.failed(clock.monotonic(), "loading", began=0.0)
    assert breaker.run_probe() == pytest.approx(2.0)  # not due yet
    assert breaker._state.reason == "loading"
    clock.advance(2.0)
    assert breaker.run_probe() == pytest.approx(2.0)
    assert (breaker.phase, breaker._state.reason) == ("open", reason)
    breaker.retire()
    assert breaker.run_probe() is None


def test_a_hiccup_begins_when_the_call_began() -> None:
    clock = FrozenClock()
    breaker = CircuitBreaker("redis", clock=clock)
    began = clock.monotonic()
    clock.advance(1)
    for _ in range(5):
        breaker.failed("timeout", began=began)
    assert breaker.phase == "closed"
    breaker.succeeded()
    for _ in range(2):
        breaker.failed("timeout")
    assert breaker.phase == "closed"
    breaker.failed("timeout")
    assert breaker.phase == "open"


# --- doubt: for those who can go on without an answer ----------------------------------------------


def test_after_one_hiccup_a_probe_finds_out_while_others_go_on() -> None:
    clock = FrozenClock()
    answers: list[Exception | None] = [BackendUnavailableError("redis", "timeout"), None]

    def probe() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    breaker = CircuitBreaker("redis", probe=probe, clock=clock)
    assert not breaker.in_doubt()
    breaker._ensure_prober = lambda: None  # type: ignore[method-assign]  # probed by hand
    breaker.failed("timeout")
    assert breaker.in_doubt()
    breaker.check()  # whoever needs an answer asks
    clock.advance(0.001)
    assert breaker.run_probe() == pytest.approx(1.0)
    assert breaker.in_doubt()
    assert breaker.run_probe() == pytest.approx(1.0)  # not more often than that
    assert len(answers) == 1
    clock.advance(1.0)
    assert breaker.run_probe() is None
    assert not breaker.in_doubt()


def test_probes_in_doubt_count_and_open_it() -> None:
    clock = FrozenClock()

    def probe() -> None:
        raise TimeoutError

    breaker = CircuitBreaker("redis", probe=probe, clock=clock)
    breaker._ensure_prober = lambda: None  # type: ignore[method-assign]  # probed by hand
    breaker.failed("timeout")
    phases = []
    for _ in range(2):
        clock.advance(1.0)
        breaker.run_probe()
        phases.append(breaker.phase)
    assert phases == ["closed", "open"]
    assert breaker.in_doubt()


def test_without_a_probe_nobody_doubts() -> None:
    breaker = CircuitBreaker("mail", clock=FrozenClock())
    breaker.failed("timeout")
    assert not breaker.in_doubt()


def test_the_background_probe_ends_the_doubt() -> None:
    breaker = CircuitBreaker("redis", probe=lambda: None, recovery_timeout=0.01)
    breaker.failed("timeout")
    assert breaker.in_doubt()
    assert _eventually(lambda: not breaker.in_doubt())
