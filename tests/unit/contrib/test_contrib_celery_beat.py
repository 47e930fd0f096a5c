"""Celery's own parts in this process: what beat sends is taken, and what signals of a worker come to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Tasks

pytest.importorskip("celery", reason="Celery is not installed")


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    # A file: in memory the thread of the notifier would have a connection of its own, which nobody closes.
    engine = hardened_engine(f"sqlite:///{tmp_path}/tasks.db")
    yield Tasks(engine)
    for thread in threading.enumerate():
        if thread.name == "mks-task-notifier":
            thread.join(60)  # it may be within a question
    engine.dispose()


def test_beat_sends_each_entry_of_its_schedule(tasks: Tasks) -> None:
    from celery.beat import Scheduler

    from mks_hardening.contrib.celery_app import RUN, celery_app

    app = celery_app(tasks, broker_url="memory://")
    scheduler = Scheduler(app)
    assert scheduler.schedule
    for entry in scheduler.schedule.values():
        assert scheduler.apply_async(entry, advance=False) is not None
    assert app.tasks[RUN].apply_async(("0" * 32,)) is not None
    app.close()


@pytest.mark.parametrize(
    "info", [{"max-concurrency": 4}, {"processes": [os.getpid()]}], ids=["threads, gevent, eventlet", "solo"]
)
def test_a_stop_starts_no_thread_where_no_process_could_be_interrupted(
    tasks: Tasks, info: dict[str, object]
) -> None:
    from celery import signals

    from mks_hardening.contrib.celery_app import celery_app

    app = celery_app(tasks, broker_url="memory://", stop_timeout=600)
    worker = Mock(app=app, pool=Mock(info=info))
    signals.worker_ready.send(sender=worker)
    before = set(threading.enumerate())
    signals.worker_shutting_down.send(sender="celery@here", sig="SIGTERM", how="Warm", exitcode=0)
    started = [
        thread for thread in set(threading.enumerate()) - before if isinstance(thread, threading.Timer)
    ]
    for timer in started:
        timer.cancel()
    assert started == []
    app.close()
