"""The small parts by themselves: what is kept as JSON, leases beat by beat, slots by name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mks_hardening.db import hardened_engine
from mks_hardening.exceptions import TaskRefusedError
from mks_hardening.tasks import Every, TaskRun, Tasks
from mks_hardening.tasks._leases import LeaseRenewer
from mks_hardening.tasks._payload import LONGEST, dump
from mks_hardening.tasks._scheduler import Scheduler
from mks_hardening.testing import FrozenClock

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOON)


@pytest.fixture
def tasks(tmp_path: Path, clock: FrozenClock) -> Iterator[Tasks]:
    made = Tasks(hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}"), clock=clock)
    made.create_table()
    yield made
    made.store.engine.dispose()


def test_json_is_short_and_readable() -> None:
    assert dump({"a": [1, "資料"]}, what="result") == '{"a":[1,"資料"]}'


def test_sixty_four_kilobytes_are_kept_and_one_byte_more_is_not() -> None:
    assert len(dump("x" * (LONGEST - 2), what="result")) == LONGEST
    with pytest.raises(TaskRefusedError, match=f"^result must be at most {LONGEST} bytes"):
        dump("x" * (LONGEST - 1), what="result")


class _ChangedMeanwhile(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (_ChangedMeanwhile(a=1), r"result must be JSON \(RuntimeError\)"),
        (float("nan"), r"result must be JSON \(ValueError\)"),
        ((1,), "result must be JSON that comes back as it was: lists for tuples"),
    ],
)
def test_a_refusal_says_what_is_wrong(value: object, said: str) -> None:
    with pytest.raises(TaskRefusedError, match=f"^{said}"):
        dump(value, what="result")


def held(tasks: Tasks, clock: FrozenClock, renewer: LeaseRenewer, *, timeout: float) -> TaskRun:
    if "noop" not in tasks.known:
        tasks.task("noop")(lambda run: None)
    with tasks.begin() as connection:
        tasks.known["noop"].enqueue(connection)
    (taken,) = tasks.store.lease(owner="a" * 32, lease=30, queues=["default"], most=1)
    run = TaskRun(tasks.store, taken, clock=clock)
    renewer.add(run, timeout=timeout)
    return run


def test_what_was_let_go_is_renewed_no_more(
    tasks: Tasks, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    run = held(tasks, clock, renewer, timeout=100)
    renewer.remove(run)
    renewer.remove(run)
    monkeypatch.setattr(tasks.store, "renew", None)
    renewer.renew_all()
    renewer.close()


def test_the_timeout_is_reported_when_it_is_reached_and_not_before(
    tasks: Tasks, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    held(tasks, clock, renewer, timeout=20)
    clock.advance(19)
    renewer.renew_all()
    assert not caplog.records
    clock.advance(1)
    renewer.renew_all()
    assert len(caplog.records) == 1


def test_the_thread_that_beats_keeps_no_process_alive_and_ends(tasks: Tasks, clock: FrozenClock) -> None:
    renewer = LeaseRenewer(tasks.store, lease=30, clock=clock)
    renewer.start()
    assert renewer._thread is None
    held(tasks, clock, renewer, timeout=100)
    thread: Any = renewer._thread
    assert thread.daemon
    renewer.close()
    assert not thread.is_alive()


def test_no_thread_beats_for_nothing(tasks: Tasks, clock: FrozenClock) -> None:
    """Who runs what is due now and then, and forgets the worker, collects no threads."""
    renewer = LeaseRenewer(tasks.store, lease=0.03, clock=clock)
    renewer.start()
    for _ in range(2):
        run = held(tasks, clock, renewer, timeout=100)
        thread: Any = renewer._thread
        assert thread.is_alive()
        renewer.remove(run)
        thread.join(10)
        assert renewer._thread is None
    renewer.close()


def keys(tasks: Tasks) -> list[str | None]:
    return [new.unique_key for new in tasks.store.accepted()]


def test_a_slot_is_named_by_its_begin_in_utc_and_enqueued_once(tasks: Tasks, clock: FrozenClock) -> None:
    tasks.task("tick", schedule=Every(3600))(lambda run: None)
    scheduler = Scheduler(tasks)
    (task_id,) = scheduler.enqueue_due()
    assert [new.id for new in tasks.store.accepted()] == [task_id]
    assert keys(tasks) == ["slot:2026-11-23T12:00:00Z"]
    assert scheduler.enqueue_due() == []
    clock.advance(3600)
    assert len(scheduler.enqueue_due()) == 1
    assert keys(tasks)[-1] == "slot:2026-11-23T13:00:00Z"


def test_a_skipped_slot_is_one_that_began_before_the_scheduler(tasks: Tasks, clock: FrozenClock) -> None:
    tasks.task("tick", schedule=Every(3600, missed="skip"))(lambda run: None)
    at_the_begin, later = Scheduler(tasks), Scheduler(tasks)
    assert len(at_the_begin.enqueue_due()) == 1
    clock.advance(60)
    tasks.task("tock", schedule=Every(3600, missed="skip"))(lambda run: None)
    assert later.enqueue_due() == []
    clock.advance(3600)
    assert len(later.enqueue_due()) == 2
    clock.advance(1)
    assert later.enqueue_due() == []


def test_a_clock_that_was_ahead_holds_back_no_slot_once_it_is_right(tasks: Tasks, clock: FrozenClock) -> None:
    tasks.task("tick", schedule=Every(3600, missed="skip"))(lambda run: None)
    scheduler = Scheduler(tasks)
    clock.step_wall(30 * 86_400 + 60)
    assert scheduler.enqueue_due() == []
    clock.step_wall(-30 * 86_400)
    assert scheduler.enqueue_due() == []
    clock.advance(3600)
    assert len(scheduler.enqueue_due()) == 1
