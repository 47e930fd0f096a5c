"""A worker under gevent: patched before our import or after it, leases are held and nobody waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.run_python import run_python

pytest.importorskip("gevent", reason="gevent is not installed")

IMPORTS = """
import mks_hardening.db, mks_hardening.tasks
from mks_hardening.tasks import Tasks, TaskWorker
"""
PATCH = """
from gevent import monkey
monkey.patch_all()
"""
WORK = """
import faulthandler, json, sys, time
from mks_hardening.db import hardened_engine

faulthandler.dump_traceback_later(50, exit=True)
engine = hardened_engine("sqlite:///" + sys.argv[1], threads=8)
tasks = Tasks(engine)
tasks.create_table()
done = []


@tasks.task("wait")
def wait(_run, number):
    time.sleep(0 if number % 10 else 1.5)  # longer than the lease: without a beat it would be taken again
    done.append(number)


with tasks.begin() as connection:
    for number in range(30):
        wait.enqueue(connection, number=number)
with TaskWorker(tasks, concurrency=4, lease=1.0, poll=0.05) as worker:
    while len(done) < 30:
        time.sleep(0.02)
    assert worker.stop(20)
print(json.dumps(sorted(done)))
"""


@pytest.mark.parametrize("order", [IMPORTS + PATCH, PATCH + IMPORTS], ids=["patched late", "patched early"])
def test_a_worker_holds_its_leases_under_gevent(order: str, tmp_path: Path) -> None:
    outcome = run_python(order + WORK, str(tmp_path / "tasks.db"))
    assert outcome.json() == list(range(30))
