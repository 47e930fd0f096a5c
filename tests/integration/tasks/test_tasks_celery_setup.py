"""What one call sets up, seen from outside: limits, stops, logs, queues, priorities, beats."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import tasks_app
from mks_hardening.logging import bound
from mks_hardening.tasks import Tasks
from tasks_watch import CeleryProcesses, effects, ended, enqueue, status_of, until
from testbed.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.postgres]


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Tasks]:
    made = tasks_app.make(postgres_url)
    yield made
    made.store.engine.dispose()


@pytest.fixture
def celery(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path, tasks: Tasks
) -> Iterator[CeleryProcesses]:
    with CeleryProcesses(postgres_url, redis_server.url, tmp_path) as processes:
        yield processes


def error_of(tasks: Tasks, task_id: str) -> str:
    return next(said for status, said in tasks.listed() if status.id == task_id)


def records(output: str) -> list[dict[str, Any]]:
    """The lines that are records; Celery also prints its banner."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


# --- limits


@pytest.mark.slow
def test_a_task_can_clean_up_at_its_soft_limit_and_one_that_will_not_is_killed(
    tasks: Tasks, celery: CeleryProcesses, tmp_path: Path
) -> None:
    celery.worker()
    tidied, stubborn = tmp_path / "tidied", tmp_path / "stubborn"
    (tidy,) = enqueue(tasks, "tidy", str(tidied))
    until(lambda: ended(tasks, [tidy]))
    assert tidied.read_text() == "cleaned up"
    assert error_of(tasks, tidy).startswith("SoftTimeLimitExceeded")
    (killed,) = enqueue(tasks, "stubborn", str(stubborn))
    until(lambda: ended(tasks, [killed]))
    assert stubborn.read_text() == "run\n"
    assert (status_of(tasks, killed).state, error_of(tasks, killed)) == (
        "dead",
        "1 workers died while running it",
    )
    after = enqueue(tasks, "effect", times=4)
    until(lambda: ended(tasks, after))


@pytest.mark.slow
def test_a_task_defined_after_the_call_is_checked_when_a_worker_starts(
    tasks: Tasks, celery: CeleryProcesses
) -> None:
    worker = celery.worker(ready=False, late={"later": 3600.0})
    assert worker.wait(60) != 0
    assert "visibility_timeout must be above 3611 s: later may run for 3601 s" in celery.output(worker)


# --- stops


@pytest.mark.slow
def test_a_worker_told_to_end_finishes_what_it_runs(tasks: Tasks, celery: CeleryProcesses) -> None:
    worker = celery.worker()
    ids = enqueue(tasks, "effect", 0.5, times=10)
    until(lambda: tasks.counts().get("running", 0) > 0)
    worker.terminate()
    assert worker.wait(30) == 0
    counts = tasks.counts()
    assert counts.get("running", 0) == 0
    assert counts["waiting"] > 0
    assert sum(effects(tasks).values()) == counts["done"] == len(ids) - counts["waiting"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["warm", "cold"])
def test_what_runs_longer_than_a_stop_may_take_is_put_back_uncounted(
    tasks: Tasks, celery: CeleryProcesses, tmp_path: Path, number: signal.Signals
) -> None:
    worker = celery.worker(celery={"stop_timeout": 1.0, "lease": 60.0})
    file = tmp_path / "long"
    (task_id,) = enqueue(tasks, "long", str(file))
    until(file.exists)
    worker.send_signal(number)
    worker.wait(30)
    status = status_of(tasks, task_id)
    assert (status.state, status.deliveries) == ("waiting", 0)
    celery.worker()
    until(lambda: ended(tasks, [task_id]))
    assert effects(tasks) == Counter([task_id])


# --- logs


def test_records_are_json_with_the_ids_of_the_request_and_without_secrets(
    tasks: Tasks, celery: CeleryProcesses
) -> None:
    worker = celery.worker()
    with bound(request_id="req-1", trace_id="a" * 32):
        (task_id,) = enqueue(tasks, "speak", "hunter2")
    until(lambda: ended(tasks, [task_id]))
    until(lambda: "signed in" in celery.output(worker))
    (said,) = [record for record in records(celery.output(worker)) if record["logger"] == "app"]
    assert (said["request_id"], said["trace_id"]) == ("req-1", "a" * 32)
    assert (said["task_id"], said["task"]) == (task_id, "speak")
    assert "hunter2" not in celery.output(worker)
    assert {record["logger"] for record in records(celery.output(worker))} >= {"celery.apps.worker"}


# --- queues, priorities, schedules


@pytest.mark.slow
def test_a_worker_serves_all_queues_it_is_given_and_urgent_tasks_first(
    tasks: Tasks, celery: CeleryProcesses
) -> None:
    for queue in ("reports", "mail"):
        tasks.task(f"work.{queue}", queue=queue)(lambda run: None)
    many = enqueue(tasks, "effect", 0.05, times=60)
    low = enqueue(tasks, "effect", priority="low")
    high = enqueue(tasks, "effect", priority="high")
    enqueue(tasks, "work.reports")
    enqueue(tasks, "work.mail")
    worker = celery.worker("-c", "1", celery={"queues": ["default", "reports", "mail"]})
    until(lambda: ended(tasks, [*many, *low, *high]))
    until(lambda: "not know the task work.reports" in celery.output(worker))
    until(lambda: "not know the task work.mail" in celery.output(worker))
    ends = {task_id: status_of(tasks, task_id).finished_at or 0.0 for task_id in (*many, *low, *high)}
    order = sorted(ends, key=lambda task_id: ends[task_id])
    assert order.index(high[0]) < 20
    assert order[-1] == low[0]


@pytest.mark.slow
def test_two_beats_and_the_schedulers_of_workers_run_each_slot_once(
    tasks: Tasks, celery: CeleryProcesses
) -> None:
    beats = {"beat_schedule": {"fast": {"task": "mks_hardening.tasks.tick", "schedule": 0.3}}}
    started = [celery.beat(scheduled=True, celery=beats) for _ in range(2)]
    celery.worker(scheduled=True)
    until(lambda: len(effects(tasks)) >= 5)
    for beat in started:
        until(lambda beat=beat: "Sending due task fast" in celery.output(beat))
        assert [record for record in records(celery.output(beat)) if record["level"] == "ERROR"] == []
    with tasks.begin() as connection:
        slots = Counter(connection.execute(text("SELECT unique_key FROM mks_task")).scalars())
    assert max(slots.values()) == 1
    assert max(effects(tasks).values()) == 1
