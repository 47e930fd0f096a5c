"""Real workers, killed, stopped and started again, on both databases: what was accepted is done or dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

import tasks_app
from mks_hardening.tasks import Tasks
from tasks_watch import effects, ended, enqueue, until, until_all_ended
from testbed.postgres_server import PostgresServer

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tasks.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def tasks(url: str) -> Iterator[Tasks]:
    made = tasks_app.make(url)
    yield made
    made.store.engine.dispose()


@pytest.fixture
def start(url: str, tmp_path: Path, tasks: Tasks) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(*options: str) -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "workers.log").open("a"))
            worker = subprocess.Popen(
                [sys.executable, str(tasks_app.__file__), url, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.callback(_end, worker)
            assert worker.stdout is not None
            ready = worker.stdout.readline() == "ready\n"
            assert ready or worker.wait(10) == -signal.SIGKILL, (tmp_path / "workers.log").read_text()
            return worker

        yield run


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def test_a_killed_worker_is_missed_and_every_effect_is_there_once(tasks: Tasks, start: Start) -> None:
    ids = enqueue(tasks, "effect", 0.05, times=30)
    doomed, _ = start(), start()
    until(lambda: len(effects(tasks)) > 4)
    doomed.kill()
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


def test_a_task_that_kills_every_worker_is_dead_and_the_others_are_done(tasks: Tasks, start: Start) -> None:
    poisoned = enqueue(tasks, "poison")
    ids = enqueue(tasks, "effect", times=5)
    workers = 0

    def done() -> bool:
        nonlocal workers
        if not alive or alive[-1].poll() is not None:
            alive.append(start())
            workers += 1
        return ended(tasks, [*ids, *poisoned])

    alive = list[subprocess.Popen[str]]()
    until(done)
    (dead,) = tasks.listed(state="dead")
    assert dead[0].id == poisoned[0]
    assert workers <= 4
    assert effects(tasks) == Counter(ids)


def test_a_worker_stopped_past_its_lease_has_no_effect_when_it_goes_on(
    tasks: Tasks, start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    (task_id,) = enqueue(tasks, "outside", str(file), 0.5)
    stopped = start()
    until(file.with_suffix(".started").exists)
    stopped.send_signal(signal.SIGSTOP)
    start()
    until(lambda: ended(tasks, [task_id]))
    stopped.send_signal(signal.SIGCONT)
    (other,) = enqueue(tasks, "effect")
    until(lambda: ended(tasks, [other]))
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(20) == 0
    assert file.read_text().split() == [task_id]


def test_a_worker_told_to_end_finishes_what_it_runs_and_takes_nothing_more(
    tasks: Tasks, start: Start
) -> None:
    ids = enqueue(tasks, "effect", 0.4, times=20)
    worker = start()
    until(lambda: any((status := tasks.status(i)) and status.state == "running" for i in ids))
    worker.terminate()
    assert worker.wait(20) == 0
    counts = tasks.counts()
    assert counts.get("running", 0) == 0
    assert counts["waiting"] > 0
    assert sum(effects(tasks).values()) == counts["done"]


def test_two_schedulers_run_each_slot_once(tasks: Tasks, start: Start) -> None:
    start("--scheduled")
    start("--scheduled")
    until(lambda: len(effects(tasks)) >= 4)
    with tasks.begin() as connection:
        slots = Counter(connection.execute(text("SELECT unique_key FROM mks_task")).scalars())
    assert max(slots.values()) == 1
    assert max(effects(tasks).values()) == 1
    assert len(effects(tasks)) <= len(slots) + 1


def test_small_tasks_by_many_workers_are_each_done_once(tasks: Tasks, start: Start) -> None:
    for _ in range(3):
        start()
    ids = enqueue(tasks, "effect", 0.02, times=150)
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)
    assert tasks.counts() == {"done": 150}
    with tasks.begin() as connection:
        workers = connection.execute(text("SELECT count(DISTINCT worker) FROM effect")).scalar_one()
    assert workers == 3


def test_a_fork_leaves_the_parents_worker_alone(tasks: Tasks) -> None:
    from mks_hardening.tasks import TaskWorker

    # The worker rests at the fork: a child that is forked while a thread is within SQLite inherits locks of
    # SQLite that nobody gives back.
    with TaskWorker(tasks, lease=5, poll=60) as worker:
        ids = enqueue(tasks, "effect", times=5)
        worker.wake()
        until(lambda: ended(tasks, ids))
        child = os.fork()
        if child == 0:
            tasks.store.engine.dispose(close=False)
            found = tasks.status(ids[0])
            os._exit(0 if found is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ids += enqueue(tasks, "effect", times=5)
        worker.wake()
        until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


@pytest.mark.slow
def test_a_kill_between_a_foreign_effect_and_its_record_costs_one_duplicate_at_most(
    tasks: Tasks, start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    hit = enqueue(tasks, "outside", str(file), 0.0, 0.6, times=2)
    doomed = start()
    until(lambda: file.exists() and len(file.read_text().split()) == 2)
    doomed.kill()
    rest = enqueue(tasks, "outside", str(file), times=5)
    start()
    until(lambda: ended(tasks, [*hit, *rest]))
    assert Counter(file.read_text().split()) == Counter([*hit, *hit, *rest])
    assert tasks.counts() == {"done": 7}


@pytest.mark.slow
def test_clocks_set_forward_and_back_while_tasks_run_cost_no_second_effect(
    tasks: Tasks, start: Start, tmp_path: Path
) -> None:
    """All hosts jump by an hour: leases look as if they had run out, and what waits as if it were not due yet."""
    shift = tmp_path / "shift"
    shift.write_text("0")
    start(f"--shift={shift}")
    start(f"--shift={shift}")
    ids = enqueue(tasks, "effect", 0.05, times=40)
    for seconds in (3600, 0, 7200, 3600):
        seen = len(effects(tasks))
        until(lambda seen=seen: len(effects(tasks)) > seen + 2 or ended(tasks, ids))  # type: ignore[misc]
        new = tmp_path / "new"
        new.write_text(f"{seconds}")
        new.replace(shift)
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


@pytest.mark.parametrize("moment", ["before", "after", "rollback"])
def test_a_task_exists_exactly_when_the_transaction_of_its_caller_was_committed(
    tasks: Tasks, url: str, start: Start, moment: str
) -> None:
    """The caller is killed right before its commit, right after it, or rolls back."""
    program = f"""
import os, signal, tasks_app
from sqlalchemy import text
tasks = tasks_app.make({url!r})
connection = tasks.store.engine.connect()
tasks_app.write(connection, "order")
print(tasks.known["effect"].enqueue(connection), flush=True)
if {moment!r} == "rollback":
    connection.rollback()
elif {moment!r} == "after":
    connection.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""
    start()
    caller = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(tasks_app.__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert caller.returncode == -signal.SIGKILL
    task_id = caller.stdout.strip()
    (other,) = enqueue(tasks, "effect")
    until(lambda: ended(tasks, [other]))
    if moment == "after":
        until(lambda: ended(tasks, [task_id]))
        assert effects(tasks) == Counter(["order", task_id, other])
    else:
        assert tasks.status(task_id) is None
        assert effects(tasks) == Counter([other])


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_an_outage_of_the_database_ends_no_worker_and_costs_no_second_effect(
    tasks: Tasks, start: Start, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    worker = start()
    ids = enqueue(tasks, "outside", str(file), 0.0, 0.3, times=12)
    until(lambda: file.exists() and len(file.read_text().split()) > 2)
    postgres_server.stop()
    postgres_server.start()
    until(lambda: ended(tasks, ids))
    assert worker.poll() is None
    assert Counter(file.read_text().split()) == Counter(ids)


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # on PostgreSQL they run with Celery
@pytest.mark.timeout(900)
def test_ten_thousand_small_tasks_are_each_done_once(tasks: Tasks, start: Start) -> None:
    ids = enqueue(tasks, "effect", times=10_000)
    for _ in range(2):
        start()
    until_all_ended(tasks, ids)
    assert effects(tasks) == Counter(ids)
    assert tasks.counts() == {"done": 10_000}
