"""One small task per engine, for the workers that ``benchmarks/tasks.py`` starts; does nothing on its own.

``BENCH_REDIS`` is the server, ``BENCH_DATABASE`` the database of our task rows. Each task counts itself in Redis
database 9.
"""

from __future__ import annotations

import os
import sys
import time

import redis

ENGINE = os.environ.get("BENCH_ENGINE", "")
SERVER = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
_counter: list[redis.Redis] = []


def work() -> None:
    """Count one task, over a connection that this process keeps."""
    if not _counter:
        _counter.append(redis.Redis.from_url(f"{SERVER}/9"))
    _counter[0].incr("done")


def late(sent: float) -> None:
    """Note the seconds since this task was enqueued."""
    taken = time.time() - sent
    redis.Redis.from_url(f"{SERVER}/9").rpush("late", str(taken))


if ENGINE.startswith("celery"):
    from celery import Celery

    app = Celery("plain", broker=f"{SERVER}/1", backend=f"{SERVER}/4" if ENGINE == "celery-results" else None)
    app.conf.update(task_ignore_result=ENGINE == "celery", broker_connection_retry_on_startup=True)
    enqueue = app.task(name="work")(work).delay

elif ENGINE.startswith("ours"):
    from mks_hardening.db import hardened_engine
    from mks_hardening.tasks import Tasks

    tasks = Tasks(hardened_engine(os.environ["BENCH_DATABASE"]), notify=ENGINE != "ours-polling")
    tasks.create_table()
    task = tasks.task("work")(lambda _run: work())
    tasks.task("late")(lambda _run, sent: late(sent))
    if ENGINE == "ours":
        from mks_hardening.contrib.celery_app import celery_app

        app = celery_app(tasks, broker_url=f"{SERVER}/1")

elif ENGINE == "huey":
    from huey import RedisHuey

    huey = RedisHuey("bench", url=f"{SERVER}/2", results=False)
    enqueue = huey.task()(work)

elif ENGINE == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=f"{SERVER}/3"))
    enqueue = dramatiq.actor(work).send

elif ENGINE == "procrastinate":
    import procrastinate

    jobs = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DATABASE"]))
    jobs.task(name="late")(late)


def main() -> None:
    """Run an embedded worker with this number of threads."""
    if ENGINE == "procrastinate":
        with jobs.open():
            print("ready", flush=True)
        jobs.run_worker(concurrency=int(sys.argv[1]), listen_notify=True)
        return
    from mks_hardening.tasks import TaskWorker

    with TaskWorker(tasks, concurrency=int(sys.argv[1]), schedule=False):
        print("ready", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__" and ENGINE:
    main()
