"""Tasks on SQLite, run on the calling thread with a clock that is moved by hand."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from smtplib import SMTPResponseException
from typing import Any, NoReturn

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mks_hardening.db import hardened_engine
from mks_hardening.events import TaskChanged, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError, TaskLostError, TaskRefusedError, TaskRetryError
from mks_hardening.logging import bound, current
from mks_hardening.tasks import Daily, Every, TaskRun, Tasks, TaskWorker
from mks_hardening.tasks._table_outage import table_outage_log
from mks_hardening.testing import FrozenClock
from testbed.polling import wait_until

MONDAY = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(MONDAY)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effect (task TEXT)"))
    yield engine
    engine.dispose()


@pytest.fixture
def tasks(engine: Engine, clock: FrozenClock) -> Tasks:
    made = Tasks(engine, clock=clock)
    made.create_table()
    return made


@pytest.fixture
def worker(tasks: Tasks, clock: FrozenClock) -> TaskWorker:
    return TaskWorker(tasks, clock=clock, schedule=False)


def enqueue(tasks: Tasks, task: Any, *args: Any, **kwargs: Any) -> str:
    with tasks.begin() as connection:
        found: str = task.enqueue(connection, *args, **kwargs)
        return found


def state(tasks: Tasks, task_id: str) -> str:
    status = tasks.status(task_id)
    assert status is not None
    return status.state


# --- accepting


def test_a_task_runs_once_and_its_result_is_kept(tasks: Tasks, worker: TaskWorker) -> None:
    @tasks.task("add")
    def add(run: TaskRun, left: int, right: int = 1) -> dict[str, int]:
        return {"sum": left + right}

    task_id = enqueue(tasks, add, 2, right=40)
    assert state(tasks, task_id) == "waiting"
    assert worker.run_pending() == ["done"]
    status = tasks.status(task_id)
    assert status is not None
    assert (status.state, status.result, status.progress, status.ended) == ("done", {"sum": 42}, 1.0, True)
    assert worker.run_pending() == []


def test_it_exists_exactly_when_the_transaction_commits(
    tasks: Tasks, engine: Engine, worker: TaskWorker
) -> None:
    @tasks.task("noop")
    def noop(run: TaskRun) -> None:
        return None

    with engine.connect() as connection:
        lost = noop.enqueue(connection)
        connection.rollback()
    assert tasks.status(lost) is None
    with Session(engine) as session:
        kept = noop.enqueue(session)
        assert worker.run_pending() == []
        session.commit()
    assert worker.run_pending() == ["done"]
    assert state(tasks, kept) == "done"


class _ChangedMeanwhile(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((object(),), r"arguments must be JSON \(TypeError\)"),
        ((_ChangedMeanwhile(a=1),), r"arguments must be JSON \(RuntimeError\)"),
        ((float("nan"),), r"arguments must be JSON \(ValueError\)"),
        ((b"x",), r"arguments must be JSON \(TypeError\)"),
        (("\ud800",), r"arguments must be JSON \(UnicodeEncodeError\)"),
        (((1, 2),), "arguments must be JSON that comes back as it was: lists for tuples"),
        (({1: "a"},), "arguments must be JSON that comes back as it was: lists for tuples"),
        (("x" * 65_528,), "arguments must be at most 65536 bytes"),
        ((), "one: missing a required argument"),
    ],
    ids=["object", "changing", "nan", "bytes", "surrogate", "tuple", "key", "long", "missing"],
)
def test_what_cannot_be_kept_is_refused_at_the_call(
    tasks: Tasks, arguments: tuple[Any, ...], said: str
) -> None:
    @tasks.task("one")
    def one(run: TaskRun, value: object) -> None:
        return None

    with pytest.raises(TaskRefusedError, match=f"^{said}"):
        enqueue(tasks, one, *arguments)
    assert tasks.listed() == []


@pytest.mark.parametrize("value", ["x" * 65_527, "資" * 21_842], ids=["ASCII", "Japanese"])
def test_sixty_four_kilobytes_of_json_are_kept(tasks: Tasks, worker: TaskWorker, value: str) -> None:
    """With ``[["`` and ``"],{}]`` around it; a character of Japanese has three bytes, not six."""
    seen = list[str]()
    tasks.task("one")(lambda run, value: seen.append(value))
    enqueue(tasks, tasks.known["one"], value)
    assert worker.run_pending() == ["done"]
    assert seen == [value]


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "x", "queue": "A"},
        {"name": "x", "priority": "urgent"},
        {"name": "x", "max_deliveries": 0},
        {"name": "x", "timeout": 0},
        {"name": "taken"},
    ],
)
def test_impossible_tasks_are_refused_when_they_are_made(tasks: Tasks, options: dict[str, Any]) -> None:
    tasks.task("taken")(lambda run: None)
    with pytest.raises(ConfigurationError):
        tasks.task(**options)


def test_one_key_is_one_task_for_ever(tasks: Tasks, worker: TaskWorker) -> None:
    ran = list[str]()

    @tasks.task("report")
    def report(run: TaskRun, month: str) -> str:
        ran.append(month)
        return month

    first = enqueue(tasks, report.using(key="2026-11"), "2026-11")
    assert enqueue(tasks, report.using(key="2026-11"), "2026-11") == first
    worker.run_pending()
    assert enqueue(tasks, report.using(key="2026-11"), "2026-11") == first
    assert worker.run_pending() == []
    assert ran == ["2026-11"]


def test_a_later_time_is_waited_for_and_priorities_come_first(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    ran = list[str]()

    @tasks.task("note")
    def note(run: TaskRun, name: str) -> None:
        ran.append(name)

    enqueue(tasks, note.using(delay=60), "later")
    enqueue(tasks, note.using(priority="low"), "low")
    enqueue(tasks, note, "normal")
    enqueue(tasks, note.using(priority="high"), "high")
    worker.run_pending()
    assert ran == ["high", "normal", "low"]
    clock.advance(59)
    assert worker.run_pending() == []
    clock.advance(1)
    worker.run_pending()
    assert ran[-1] == "later"


def test_other_queues_are_left_to_other_workers(tasks: Tasks, worker: TaskWorker) -> None:
    reports = tasks.task("report", queue="reports")(lambda run: None)
    enqueue(tasks, reports)
    assert worker.run_pending() == []
    assert TaskWorker(tasks, queues=["reports"], schedule=False).run_pending() == ["done"]


# --- failing


def test_what_can_get_better_is_tried_again_with_growing_waits(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    tries = list[int]()

    @tasks.task("mail", max_attempts=3)
    def mail(run: TaskRun) -> None:
        tries.append(run.attempt)
        raise SMTPResponseException(451, b"later")

    task_id = enqueue(tasks, mail)
    assert worker.run_pending() == ["retried"]
    assert worker.run_pending() == []
    clock.advance(2)
    assert worker.run_pending() == ["retried"]
    clock.advance(4)
    assert worker.run_pending() == ["dead"]
    assert tries == [1, 2, 3]
    assert state(tasks, task_id) == "dead"


@pytest.mark.parametrize("error", [ValueError("password=hunter2"), SMTPResponseException(550, b"no")])
def test_what_stays_wrong_is_dead_at_once_and_its_secret_is_not_kept(
    tasks: Tasks, worker: TaskWorker, error: Exception
) -> None:
    @tasks.task("wrong")
    def wrong(run: TaskRun) -> None:
        raise error

    task_id = enqueue(tasks, wrong)
    assert worker.run_pending() == ["dead"]
    ((status, said),) = tasks.listed(state="dead")
    assert status.id == task_id
    assert said.startswith(type(error).__name__)
    assert "hunter2" not in said
    assert "hunter2" not in repr(status)


def test_a_task_may_say_when_it_wants_to_be_run_again(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    @tasks.task("poll")
    def poll(run: TaskRun) -> int:
        if run.attempt == 1:
            raise TaskRetryError(after=30)
        return run.attempt

    task_id = enqueue(tasks, poll)
    assert worker.run_pending() == ["retried"]
    clock.advance(30)
    assert worker.run_pending() == ["done"]
    status = tasks.status(task_id)
    assert status is not None
    assert status.result == 2


def test_a_report_within_the_commit_does_not_wait_for_its_own_transaction(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    @tasks.task("rows")
    def rows(run: TaskRun) -> None:
        run.progress(0.1)
        with run.commit("done") as connection:
            connection.execute(text("INSERT INTO effect VALUES ('a')"))
            clock.advance(1)
            run.progress(0.5, "half")

    enqueue(tasks, rows)
    assert worker.run_pending() == ["done"]


@pytest.mark.parametrize(
    "late", [lambda run: run.progress(1.0), lambda run: run.check()], ids=["progress", "check"]
)
def test_what_comes_after_the_commit_is_called_so(
    tasks: Tasks, worker: TaskWorker, caplog: pytest.LogCaptureFixture, late: Callable[[TaskRun], None]
) -> None:
    @tasks.task("late")
    def ended(run: TaskRun) -> None:
        with run.commit():
            pass
        late(run)

    enqueue(tasks, ended)
    assert worker.run_pending() == ["done"]
    assert "the task has ended with its commit" in caplog.text


@pytest.mark.parametrize(
    ("after", "wait"),
    [(timedelta(seconds=30), 30), (-5, 0), ("30", None), (float("inf"), None), (1e300, None)],
)
def test_what_is_no_time_to_run_again_is_told_and_the_task_waits_as_after_a_failure(
    tasks: Tasks,
    worker: TaskWorker,
    *,
    clock: FrozenClock,
    after: Any,
    wait: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tasks.task("poll")
    def poll(run: TaskRun) -> None:
        if run.attempt == 1:
            raise TaskRetryError(after=after)

    enqueue(tasks, poll)
    assert worker.run_pending(most=1) == ["retried"]
    clock.advance(2 if wait is None else wait)
    assert worker.run_pending() == ["done"]
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert ["but after must be" in said for said in messages] == ([True] if wait is None else [])


@pytest.mark.parametrize(
    "options", [{"due_at": 1_764_000_000_000}, {"delay": 1e300}], ids=["milliseconds", "far"]
)
def test_a_time_that_never_comes_is_refused(tasks: Tasks, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        tasks.task("noop")(lambda run: None).using(**options)  # type: ignore[arg-type]  # one of two numbers


def test_a_task_that_kills_its_worker_ends_on_the_list_of_the_dead(
    tasks: Tasks, worker: TaskWorker, clock: FrozenClock
) -> None:
    ran = list[int]()

    @tasks.task("poison", max_deliveries=3)
    def poison(run: TaskRun) -> None:
        ran.append(run.delivery)
        raise KeyboardInterrupt

    task_id = enqueue(tasks, poison)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            worker.run_pending()
        clock.advance(31)
    assert worker.run_pending() == ["dead"]
    assert ran == [1, 2, 3]
    assert tasks.replay(task_id)
    with pytest.raises(KeyboardInterrupt):
        worker.run_pending()
    assert ran == [1, 2, 3, 1]
    clock.advance(31)
    assert not tasks.discard(task_id)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            worker.run_pending()
        clock.advance(31)
    worker.run_pending()
    assert tasks.discard(task_id)
    assert tasks.status(task_id) is None


def test_a_name_the_worker_lacks_waits_for_new_code_and_counts_nothing(
    tasks: Tasks, engine: Engine, clock: FrozenClock, worker: TaskWorker
) -> None:
    newer = Tasks(engine, clock=clock)
    task_id = enqueue(newer, newer.task("new")(lambda run: "new"))
    for _ in range(10):
        assert worker.run_pending() == ["unknown"]
        clock.advance(15)
    assert TaskWorker(newer, clock=clock, schedule=False).run_pending() == ["done"]
    status = newer.status(task_id)
    assert status is not None
    assert (status.result, status.deliveries) == ("new", 1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("a", "paper"), {}), (("a",), {"paper": "A3"}), ((), {})],
    ids=["one more", "a new name", "one that is needed by now"],
)
def test_arguments_of_another_release_wait_for_its_worker_and_count_nothing(  # noqa: PLR0917 - a row of the table
    tasks: Tasks,
    engine: Engine,
    clock: FrozenClock,
    worker: TaskWorker,
    arguments: tuple[str, ...],
    named: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a release both run side by side, and a function grows parameters between two of them."""

    @tasks.task("report")
    def report(run: TaskRun, subject: str) -> str:
        return f"old {subject}"

    others = Tasks(engine, clock=clock)

    @others.task("report")
    def of_the_other(run: TaskRun, subject: str = "", paper: str = "A4") -> str:
        return f"{subject} on {paper}"

    with others.begin() as connection:
        task_id = of_the_other.enqueue(connection, *arguments, **named)
    done = enqueue(tasks, report, "b")
    assert sorted(worker.run_pending()) == ["done", "unknown"]
    clock.advance(15)
    assert worker.run_pending() == ["unknown"]
    assert "does not take the arguments" in caplog.text
    clock.advance(600)
    assert worker.run_pending() == ["stranded"]
    assert "has waited 615 s for a worker that knows its arguments" in caplog.text
    clock.advance(15)
    assert TaskWorker(others, clock=clock, schedule=False).run_pending() == ["done"]
    status, of_ours = others.status(task_id), tasks.status(done)
    assert status is not None
    assert of_ours is not None
    assert (status.deliveries, of_ours.result) == (1, "old b")


def test_a_type_error_within_the_work_is_a_failure_of_its_own(tasks: Tasks, worker: TaskWorker) -> None:
    @tasks.task("wrong")
    def wrong(run: TaskRun, subject: str) -> None:
        raise TypeError("unsupported operand")

    assert state(tasks, enqueue(tasks, wrong, "x")) == "waiting"
    assert worker.run_pending() == ["dead"]


# --- effects


def test_effects_and_end_are_committed_together(tasks: Tasks, engine: Engine, worker: TaskWorker) -> None:
    @tasks.task("effect")
    def effect(run: TaskRun, fail: bool) -> None:
        with run.commit({"rows": 1}) as connection:
            connection.execute(text("INSERT INTO effect VALUES (:task)"), {"task": run.id})
            if fail:
                raise ValueError("in the middle")

    good, bad = enqueue(tasks, effect, False), enqueue(tasks, effect, True)
    assert sorted(worker.run_pending()) == ["dead", "done"]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT task FROM effect")).scalars().all() == [good]
    assert state(tasks, bad) == "dead"


def test_a_worker_that_lost_its_lease_has_no_effect(
    tasks: Tasks, engine: Engine, clock: FrozenClock, worker: TaskWorker
) -> None:
    other = TaskWorker(tasks, clock=clock, schedule=False)
    seen = list[Any]()

    @tasks.task("slow")
    def slow(run: TaskRun) -> str:
        if run.delivery == 1:
            clock.advance(31)
            seen.append(other.run_pending())
            with pytest.raises(TaskLostError):
                run.check()
            with pytest.raises(TaskLostError), run.commit() as connection:
                connection.execute(text("INSERT INTO effect VALUES ('late')"))
            raise TaskLostError
        return "second"

    task_id = enqueue(tasks, slow)
    assert worker.run_pending() == ["lost"]
    assert seen == [["done"]]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM effect")).scalar_one() == 0
    status = tasks.status(task_id)
    assert status is not None
    assert status.result == "second"


def test_a_late_result_changes_nothing(tasks: Tasks, clock: FrozenClock, worker: TaskWorker) -> None:
    other = TaskWorker(tasks, clock=clock, schedule=False)

    @tasks.task("slow")
    def slow(run: TaskRun) -> int:
        if run.delivery == 1:
            clock.advance(31)
            other.run_pending()
        return run.delivery

    task_id = enqueue(tasks, slow)
    assert worker.run_pending() == ["lost"]
    status = tasks.status(task_id)
    assert status is not None
    assert status.result == 2


# --- looking and steering


def test_progress_is_seen_and_a_request_to_stop_is_heeded(
    tasks: Tasks, clock: FrozenClock, worker: TaskWorker
) -> None:
    seen = list[tuple[float, str]]()

    @tasks.task("stages")
    def stages(run: TaskRun) -> None:
        for part in range(10):
            run.progress(part / 10, f"part {part}")
            status = tasks.status(run.id)
            assert status is not None
            seen.append((status.progress, status.stage))
            clock.advance(0.06)
            if part == 4:
                assert tasks.cancel(run.id)

    task_id = enqueue(tasks, stages)
    assert worker.run_pending() == ["cancelled"]
    assert seen == [
        (0.0, "part 0"),
        (0.0, "part 0"),
        (0.2, "part 2"),
        (0.2, "part 2"),
        (0.4, "part 4"),
        (0.4, "part 4"),
    ]
    assert state(tasks, task_id) == "cancelled"


def test_a_waiting_task_is_cancelled_and_can_be_replayed(tasks: Tasks, worker: TaskWorker) -> None:
    task_id = enqueue(tasks, tasks.task("noop")(lambda run: None))
    assert tasks.cancel(task_id)
    assert not tasks.cancel(task_id)
    assert worker.run_pending() == []
    assert tasks.replay(task_id)
    assert worker.run_pending() == ["done"]
    assert not tasks.replay(task_id)


def test_others_are_told_that_there_is_no_such_task(tasks: Tasks) -> None:
    task = tasks.task("noop")(lambda run: None)
    task_id = enqueue(tasks, task.using(user_id="7"))
    assert tasks.status(task_id, user_id="7") is not None
    assert tasks.status(task_id, user_id="8") is None
    assert tasks.status("0" * 32, user_id="7") is None


def test_old_ends_are_removed_and_the_dead_stay(tasks: Tasks, clock: FrozenClock, worker: TaskWorker) -> None:
    @tasks.task("any")
    def any_(run: TaskRun, fail: bool) -> None:
        if fail:
            raise ValueError

    for fail in (False, True):
        enqueue(tasks, any_, fail)
    enqueue(tasks, any_.using(key="k"), False)
    worker.run_pending()
    clock.advance(8 * 86_400)
    assert tasks.clean() == 1
    clock.advance(90 * 86_400)
    assert tasks.clean() == 1
    assert [status.state for status, _ in tasks.listed()] == ["dead"]


def test_records_carry_the_ids_of_the_request(tasks: Tasks, worker: TaskWorker) -> None:
    seen = list[Any]()

    @tasks.task("look")
    def look(run: TaskRun) -> None:
        seen.append(dict(current()))

    with bound(request_id="r" * 16, trace_id="t" * 32, user_id="not carried"):
        task_id = enqueue(tasks, look)
    worker.run_pending()
    assert seen == [{"request_id": "r" * 16, "trace_id": "t" * 32, "task_id": task_id, "task": "look"}]


def test_every_end_is_an_event(tasks: Tasks, worker: TaskWorker, clock: FrozenClock) -> None:
    events = list[Any]()

    @tasks.task("slow")
    def slow(run: TaskRun) -> None:
        clock.advance(3)

    enqueue(tasks, slow)
    add_observer(events.append)
    try:
        worker.run_pending()
    finally:
        remove_observer(events.append)
    assert [event for event in events if isinstance(event, TaskChanged)] == [TaskChanged("slow", "done", 3.0)]


# --- schedules


def test_two_schedulers_run_each_slot_once(tasks: Tasks, clock: FrozenClock) -> None:
    ran = list[float]()
    tasks.task("tick", schedule=Every(60))(lambda run: ran.append(clock.time()))
    workers = [TaskWorker(tasks, clock=clock) for _ in range(2)]
    for _ in range(4):
        for worker in workers:
            worker.run_pending()
        clock.advance(60)
    assert len(ran) == 4


@pytest.mark.parametrize(("missed", "runs"), [("once", 2), ("skip", 1)])
def test_missed_slots_run_once_or_not_at_all(
    tasks: Tasks, clock: FrozenClock, missed: str, runs: int
) -> None:
    ran = list[int]()
    tasks.task("tick", schedule=Every(3600, missed=missed))(lambda run: ran.append(1))
    TaskWorker(tasks, clock=clock).run_pending()
    clock.advance(3 * 3600 + 30)
    TaskWorker(tasks, clock=clock).run_pending()
    assert len(ran) == runs


def test_daily_slots_are_in_the_zone_of_people(tasks: Tasks, clock: FrozenClock) -> None:
    rule = Daily(6, 30, weekday=0)
    begin = datetime(2026, 11, 22, 21, 30, tzinfo=UTC).timestamp()  # Monday 06:30 in Tokyo
    assert rule.slot(clock.time()) == begin
    assert rule.next_slot(clock.time()) == begin + 7 * 86_400


@pytest.mark.parametrize(
    ("zone", "begin"),
    [
        ("Pacific/Kiritimati", datetime(2026, 11, 25, 10, 30, tzinfo=UTC)),  # 00:30 on the 26th
        ("Etc/GMT+12", datetime(2026, 11, 24, 12, 30, tzinfo=UTC)),  # 00:30 on the 24th
    ],
)
def test_a_daily_slot_begins_on_the_date_of_its_zone(zone: str, begin: datetime) -> None:
    rule, at = Daily(0, 30, zone=zone), begin.timestamp()
    assert [rule.slot(at), rule.next_slot(at - 1)] == [at, at]
    assert [rule.slot(at - 1), rule.next_slot(at)] == [at - 86_400, at + 86_400]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Every(0.5),
        lambda: Every(60, missed="twice"),
        lambda: Daily(24),
        lambda: Daily(1, weekday=0, day=1),
        lambda: Daily(1, day=29),
        lambda: Daily(1, zone="Asia/Nowhere"),
    ],
)
def test_impossible_schedules_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


# --- what a fresh pair of eyes found


def test_run_pending_holds_the_lease_of_a_long_task(tasks: Tasks, engine: Engine) -> None:
    """Two crons at once: the second must not take what the first still runs."""
    real = Tasks(engine)
    runs, started = list[int](), threading.Event()

    @real.task("long")
    def long(run: TaskRun) -> None:
        runs.append(run.delivery)
        started.set()
        run.lost.wait(1.6)

    enqueue(real, long)
    first = threading.Thread(target=TaskWorker(real, lease=1, schedule=False).run_pending)
    first.start()
    assert started.wait(5)
    second = TaskWorker(real, lease=1, schedule=False)
    while first.is_alive():
        assert second.run_pending() == []
        first.join(0.05)
    assert runs == [1]


def test_a_task_that_exits_is_dead_and_its_thread_goes_on(tasks: Tasks, worker: TaskWorker) -> None:
    @tasks.task("exits")
    def exits(run: TaskRun) -> None:
        sys.exit(2)

    enqueue(tasks, exits)
    assert worker.run_pending() == ["dead"]
    assert tasks.listed(state="dead")[0][1] == "SystemExit: 2"


def test_options_add_up(tasks: Tasks, worker: TaskWorker, clock: FrozenClock) -> None:
    task = tasks.task("noop")(lambda run: None).using(key="k").using(delay=5, user_id="7")
    task_id = enqueue(tasks, task)
    assert enqueue(tasks, task) == task_id
    assert worker.run_pending() == []
    assert tasks.status(task_id, user_id="7") is not None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tasks: tasks.task("x", schedule="daily"),
        lambda tasks: TaskWorker(tasks, queues="default"),
        lambda tasks: tasks.task("x")(lambda run: None).using(due_at="tomorrow"),
        lambda tasks: tasks.task("x")(lambda run: None).using(due_at=float("nan")),
        lambda tasks: tasks.task("x")(lambda run: None).using(user_id=5),
        lambda tasks: tasks.task("x")(lambda run: None).enqueue(None),
        lambda tasks: tasks.task("x")(lambda run: None).enqueue(tasks.store.engine),
        lambda tasks: tasks.task("x")(_coroutine),
        lambda tasks: Tasks("sqlite://"),
    ],
)
def test_impossible_parameters_are_refused_by_name(tasks: Tasks, wrong: Callable[[Tasks], object]) -> None:
    with pytest.raises(ConfigurationError):
        wrong(tasks)


async def _coroutine(run: TaskRun) -> None:
    return None


def test_a_connection_that_commits_by_itself_is_refused(tasks: Tasks, engine: Engine) -> None:
    task = tasks.task("noop")(lambda run: None)
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigurationError, match="autocommit mode"),
    ):
        task.enqueue(connection)


def test_looking_for_what_is_scheduled_is_no_sign_of_a_database(
    engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[int]()
    worker = TaskWorker(Tasks(engine, table="absent"), poll=0.01)
    monkeypatch.setattr(worker, "enqueue_scheduled", lambda: looks.append(1))
    with worker:
        wait_until(lambda: "no such table" in caplog.text)
        seen = len(looks)
        wait_until(lambda: len(looks) > seen + 2)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_database_that_is_away_is_one_record_going_and_one_coming(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    outage = table_outage_log()
    waits = [outage.failed(OSError()) for _ in range(8)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    for _ in range(3):
        outage.succeeded()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
