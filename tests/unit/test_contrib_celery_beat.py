"""What beat sends is taken by Celery: the messages of our tasks are those that it checks them against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Tasks

pytest.importorskip("celery", reason="Celery is not installed")


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    engine = hardened_engine("sqlite://")
    yield Tasks(engine)
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
