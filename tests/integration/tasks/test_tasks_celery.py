"""Tasks on Celery with a real Redis: what its messages lose, repeat or delay changes nothing."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

import tasks_app
from mks_hardening.contrib.celery_app import RUN, TaskNotifier, celery_app
from mks_hardening.tasks import Tasks
from mks_hardening.tasks._leases import LEASE
from mks_hardening.tasks.store._wake_ups import WakeUps
from tasks_watch import CeleryProcesses, effects, ended, enqueue, status_of, until, until_all_ended, workers
from testbed.postgres_server import PostgresServer
from testbed.redis_groups import SentinelGroup
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


# --- the broker


def test_a_broker_that_comes_back_empty_loses_nothing(
    tasks: Tasks, celery: CeleryProcesses, redis_server: RedisServer
) -> None:
    celery.worker()
    ids = enqueue(tasks, "effect", 0.1, times=30)
    until(lambda: len(effects(tasks)) > 2)
    redis_server.command("FLUSHALL")
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


@pytest.mark.slow
@pytest.mark.parametrize("orderly", [True, False], ids=["stopped", "killed"])
def test_tasks_are_accepted_while_the_broker_is_down_and_run_when_it_is_back(
    tasks: Tasks, celery: CeleryProcesses, redis_server: RedisServer, orderly: bool
) -> None:
    """Those that run when the connection breaks go on (``worker_cancel_long_running_tasks_on_connection_loss``)."""
    celery.worker()
    running = enqueue(tasks, "effect", 1.0, times=2)
    until(lambda: tasks.counts().get("running") == 2)
    redis_server.stop() if orderly else redis_server.kill()
    ids = enqueue(tasks, "effect", times=10)
    until(lambda: ended(tasks, running))
    assert not ended(tasks, ids)
    redis_server.start()
    until(lambda: celery.keep_up() and ended(tasks, ids))
    assert effects(tasks) == Counter([*running, *ids])
    assert [status_of(tasks, task_id).deliveries for task_id in running] == [1, 1]


@pytest.mark.slow
def test_a_silent_broker_holds_up_nothing_that_is_accepted_meanwhile(
    tasks: Tasks, celery: CeleryProcesses, redis_server: RedisServer
) -> None:
    celery.worker()
    first = enqueue(tasks, "effect", 0.1, times=20)
    until(lambda: len(effects(tasks)) > 2)
    redis_server.pause()
    meanwhile = enqueue(tasks, "effect", times=10)
    until(lambda: not tasks.counts().get("running"))
    redis_server.resume()
    until(lambda: celery.keep_up() and ended(tasks, [*first, *meanwhile]))
    assert effects(tasks) == Counter([*first, *meanwhile])


@pytest.mark.slow
def test_a_message_that_comes_again_does_nothing(
    tasks: Tasks, celery: CeleryProcesses, redis_server: RedisServer
) -> None:
    celery.worker()
    app = celery_app(tasks, broker_url=redis_server.url)
    (task_id,) = enqueue(tasks, "effect", 0.3)
    for _ in range(5):
        app.send_task(RUN, args=[task_id], ignore_result=True)
    until(lambda: ended(tasks, [task_id]))
    for _ in range(5):
        app.send_task(RUN, args=[task_id], ignore_result=True)
    last = enqueue(tasks, "effect")
    until(lambda: ended(tasks, last))
    assert effects(tasks) == Counter([task_id, *last])


@pytest.mark.slow
def test_a_message_whose_visibility_has_passed_does_nothing(
    tasks: Tasks, celery: CeleryProcesses, redis_server: RedisServer
) -> None:
    """The broker hands running tasks on to an idle worker, as after an hour of work."""
    sweep = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    for _ in range(2):
        celery.worker(celery={"broker_transport_options": sweep})
    ids = enqueue(tasks, "effect", 4.0, times=2)
    until(lambda: tasks.counts().get("running") == 2)
    with redis_server.client() as client:
        long_ago = dict.fromkeys(client.zrange("unacked_index", 0, -1), 1.0)
        assert len(long_ago) == 2
        client.zadd("unacked_index", long_ago)
        until(lambda: not set(client.zrange("unacked_index", 0, -1)) & set(long_ago))
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)
    assert [status_of(tasks, task_id).deliveries for task_id in ids] == [1, 1]


@pytest.mark.slow
def test_a_fail_over_of_sentinel_loses_nothing(
    tasks: Tasks, postgres_url: str, redis_sentinels: SentinelGroup, tmp_path: Path
) -> None:
    url = ";".join(f"sentinel://{host}:{port}" for host, port in redis_sentinels.addresses)
    options = {"broker_transport_options": {"master_name": redis_sentinels.name}}
    with CeleryProcesses(postgres_url, url, tmp_path) as celery:
        celery.worker(celery=options)
        first = enqueue(tasks, "effect", 0.1, times=20)
        until(lambda: len(effects(tasks)) > 2)
        redis_sentinels.fail_over()
        ids = [*first, *enqueue(tasks, "effect", times=10)]
        until(lambda: celery.keep_up() and ended(tasks, ids))
        assert effects(tasks) == Counter(ids)


# --- workers


def test_a_killed_pool_process_costs_nothing(tasks: Tasks, celery: CeleryProcesses) -> None:
    celery.worker()
    ids = enqueue(tasks, "effect", 0.2, times=15)
    until(lambda: len(effects(tasks)) > 2)
    os.kill(next(iter(workers(tasks))), signal.SIGKILL)
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


@pytest.mark.slow
def test_engines_of_sqlalchemy_itself_survive_pool_processes_that_are_replaced(
    tasks: Tasks, celery: CeleryProcesses
) -> None:
    """The notifier's connections are open in the main process when it forks a new one."""
    celery.worker(plain=True)
    ids = enqueue(tasks, "effect", 0.05, times=60)
    killed = set[int]()
    while len(killed) < 3:
        until(lambda: workers(tasks) - killed)
        pid = min(workers(tasks) - killed)
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_by_another(tasks: Tasks, celery: CeleryProcesses) -> None:
    doomed = celery.worker()
    ids = enqueue(tasks, "effect", 0.2, times=20)
    until(lambda: len(effects(tasks)) > 2)
    os.killpg(doomed.pid, signal.SIGKILL)
    celery.worker()
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter(ids)


@pytest.mark.slow
def test_a_kill_between_a_foreign_effect_and_its_record_costs_one_duplicate_at_most(
    tasks: Tasks, celery: CeleryProcesses, tmp_path: Path
) -> None:
    doomed, file = celery.worker(), tmp_path / "effects"
    hit = enqueue(tasks, "outside", str(file), 0.0, 60.0, times=2)
    until(lambda: file.exists() and len(file.read_text().split()) == 2)
    os.killpg(doomed.pid, signal.SIGKILL)
    celery.worker()
    until(lambda: len(file.read_text().split()) == 4)
    assert Counter(file.read_text().split()) == Counter(hit * 2)


@pytest.mark.slow
def test_poison_ends_on_the_list_of_the_dead_and_the_rest_is_done(
    tasks: Tasks, celery: CeleryProcesses
) -> None:
    celery.worker()
    poisoned, ids = enqueue(tasks, "poison"), enqueue(tasks, "effect", times=5)
    until(lambda: ended(tasks, [*poisoned, *ids]))
    assert [status.id for status, _ in tasks.listed(state="dead")] == poisoned
    assert effects(tasks) == Counter(ids)


@pytest.mark.slow
def test_a_worker_stopped_past_its_lease_has_no_effect_when_it_goes_on(
    tasks: Tasks, celery: CeleryProcesses, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    stopped = celery.worker()
    ids = enqueue(tasks, "outside", str(file), 0.5)
    until(file.with_suffix(".started").exists)
    os.killpg(stopped.pid, signal.SIGSTOP)
    celery.worker()
    until(lambda: ended(tasks, ids))
    os.killpg(stopped.pid, signal.SIGCONT)
    until(lambda: "expired; its result is not recorded" in celery.output(stopped))
    assert file.read_text().split() == ids


@pytest.mark.slow
def test_an_idle_worker_takes_what_waits_behind_a_full_one(tasks: Tasks, celery: CeleryProcesses) -> None:
    celery.worker()
    long = enqueue(tasks, "effect", 20.0, times=2)
    until(lambda: tasks.counts().get("running") == 2)
    celery.worker()
    ids = enqueue(tasks, "effect", times=8)
    until(lambda: ended(tasks, ids))
    assert {status_of(tasks, task_id).state for task_id in long} == {"running"}


@pytest.mark.slow
def test_old_and_new_code_side_by_side_throw_nothing_away(tasks: Tasks, celery: CeleryProcesses) -> None:
    old = celery.worker(old=True)
    ids = enqueue(tasks, "new", times=3)
    until(lambda: celery.output(old).count("does not know the task new") >= 3)
    known = enqueue(tasks, "effect", times=3)
    until(lambda: ended(tasks, known))
    assert [status_of(tasks, task_id).deliveries for task_id in ids] == [0, 0, 0]
    celery.worker()
    until(lambda: ended(tasks, ids))
    assert effects(tasks) == Counter([*known, *ids])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_database_that_restarts_costs_no_task_and_no_second_effect(
    tasks: Tasks, celery: CeleryProcesses, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """With the default lease, which outlasts a restart: once a lease has expired, another worker runs the task."""
    celery.worker(celery={"lease": LEASE})
    file = tmp_path / "effects"
    ids = enqueue(tasks, "outside", str(file), 0.0, 0.2, times=20)
    until(lambda: file.exists() and len(file.read_text().split()) > 4)
    postgres_server.stop()
    postgres_server.start()
    until_all_ended(tasks, ids)
    assert tasks.counts() == {"done": 20}
    assert Counter(file.read_text().split()) == Counter(ids)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_small_tasks_are_each_done_once(tasks: Tasks, celery: CeleryProcesses) -> None:
    ids = enqueue(tasks, "effect", times=10_000)
    celery.worker()
    until_all_ended(tasks, ids)
    assert effects(tasks) == Counter(ids)
    assert tasks.counts() == {"done": 10_000}


# --- wake-up messages


def test_a_broker_that_is_down_leaves_the_rows_to_be_announced(tasks: Tasks) -> None:
    notifier = TaskNotifier(tasks, celery_app(tasks, broker_url="redis://127.0.0.1:1/0"))
    (task_id,) = enqueue(tasks, "effect")
    with pytest.raises(Exception, match=r"refused|Connection"):
        notifier.announce()
    again = WakeUps(tasks.store).due(queues=["default"], again_after=60, most=10)
    assert [ring.task_id for ring in again] == [task_id]  # as if it had not been tried


def test_an_outage_of_the_database_breaks_no_connection_to_the_broker(
    tasks: Tasks, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    notifier = TaskNotifier(tasks, celery_app(tasks, broker_url=redis_server.url))
    enqueue(tasks, "effect")
    assert notifier.announce() == 1
    enqueue(tasks, "effect")
    with tasks.begin() as connection:  # as if the first one had been announced long ago
        connection.execute(tasks.store.table.update().values(rung_at=tasks.store.table.c.rung_at - 60))
    postgres_server.stop()
    for _ in range(3):
        with pytest.raises(OperationalError):
            notifier.announce()
    postgres_server.start()
    assert notifier.announce() == 2


def test_a_broker_that_cannot_say_how_much_it_holds_loses_no_wake_up(tasks: Tasks) -> None:
    (stale,) = enqueue(tasks, "effect")
    wake_ups = WakeUps(tasks.store)
    assert len(wake_ups.due(queues=["default"], again_after=60, most=10)) == 1
    with tasks.begin() as connection:
        connection.execute(tasks.store.table.update().values(rung_at=tasks.store.table.c.rung_at - 90))
    (fresh,) = enqueue(tasks, "effect")
    notifier = TaskNotifier(tasks, celery_app(tasks, broker_url="redis://127.0.0.1:1/0"))
    with pytest.raises(Exception, match=r"refused|Connection"):
        notifier.announce()
    found = wake_ups.due(queues=["default"], again_after=60, most=10)
    assert {wake_up.task_id for wake_up in found} == {stale, fresh}


def test_a_long_queue_is_not_filled_with_repetitions(
    tasks: Tasks, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes them: each is rung once, until the broker has lost them."""
    monkeypatch.setattr("mks_hardening.contrib._celery_wake_ups._FEW", 10)
    notifier = TaskNotifier(tasks, celery_app(tasks, broker_url=redis_server.url), again_after=1.0)
    enqueue(tasks, "effect", times=20)
    enqueue(tasks, "effect", priority="high")

    def rung() -> int:
        """As if the last ring was long ago."""
        with tasks.begin() as connection:
            connection.execute(tasks.store.table.update().values(rung_at=tasks.store.table.c.rung_at - 60))
        return notifier.announce()

    assert [rung(), rung(), rung()] == [21, 0, 0]
    assert redis_server.command("LLEN", "default") == 1
    redis_server.command("FLUSHALL")
    assert [rung(), rung()] == [21, 0]
