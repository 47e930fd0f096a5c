"""Observation of tasks from outside, and Celery processes, for tests of failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import text

import tasks_app
from mks_hardening.tasks import Tasks, TaskStatus
from testbed.polling import wait_until

PATIENCE = 60.0


def enqueue(tasks: Tasks, name: str, *args: Any, times: int = 1, **options: Any) -> list[str]:
    """Enqueue a task this many times in one transaction; return the ids."""
    with tasks.begin() as connection:
        return [tasks.known[name].using(**options).enqueue(connection, *args) for _ in range(times)]


def until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Poll until the result is true."""
    wait_until(condition, timeout=seconds, what="what the test waits for")


def until_all_ended(tasks: Tasks, ids: list[str]) -> None:
    """Wait as long as tasks keep ending, however slow the machine is."""
    while True:
        before = tasks.counts()
        with suppress(TimeoutError):
            return until(lambda: ended(tasks, ids))
        assert tasks.counts() != before, f"nothing moved for {PATIENCE:g} s: {before}"


def status_of(tasks: Tasks, task_id: str) -> TaskStatus:
    """Return the status of a task that must exist."""
    found = tasks.status(task_id)
    assert found is not None
    return found


def ended(tasks: Tasks, ids: list[str]) -> bool:
    """Return whether all have ended; only the last unfinished one is queried, so that polling stays cheap."""
    while ids and status_of(tasks, ids[-1]).ended:
        ids = ids[:-1]
    return not ids


def effects(tasks: Tasks) -> Counter[str]:
    """Return how often each task had its effect in the database."""
    with tasks.begin() as connection:
        return Counter(connection.execute(text("SELECT task FROM effect")).scalars())


def workers(tasks: Tasks) -> set[int]:
    """Return the processes that had effects."""
    with tasks.begin() as connection:
        return {int(pid) for pid in connection.execute(text("SELECT DISTINCT worker FROM effect")).scalars()}


class CeleryProcesses:
    """Starts workers and beats of ``tasks_celery``, each in its own process group.

    Args:
        database_url: where the rows are.
        broker_url: where messages go.
        folder: for their output.
    """

    def __init__(self, database_url: str, broker_url: str, folder: Path) -> None:
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(Path(tasks_app.__file__).parent),
            "TASKS_URL": database_url,
            "BROKER_URL": broker_url,
        }
        self._folder = folder
        self._stack = ExitStack()
        self.logs: dict[int, Path] = {}
        self._kept_up = list[tuple[subprocess.Popen[bytes], list[str], dict[str, Any]]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def worker(self, *arguments: str, ready: bool = True, **options: Any) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready.

        Args:
            arguments: further ones of the command line.
            ready: whether to wait.
            options: of ``tasks_app.make``, and those of ``celery_app`` as ``celery``.
        """
        command = ["worker", "-c", "2", "-l", "INFO", *arguments]
        worker = self._start(command, options)
        self._kept_up.append((worker, command, options))
        if ready:
            until(lambda: " ready." in self.output(worker) or worker.poll() is not None)
            assert worker.poll() is None, self.output(worker)
        return worker

    def keep_up(self) -> bool:
        """Restart workers that ended, as ``Restart=always`` of systemd does; always true, for use in conditions.

        kombu 5.7 ends a worker now and then when a broker goes away: it gives messages back on a connection that
        it has let go of before (``'NoneType' object has no attribute 'hostname'``).
        """
        for place, (worker, command, options) in enumerate(self._kept_up):
            if worker.poll() is not None:
                self._kept_up[place] = (self._start(command, options), command, options)
        return True

    def beat(self, **options: Any) -> subprocess.Popen[bytes]:
        """Start a beat."""
        schedule = self._folder / f"beat{len(self.logs)}"
        return self._start(["beat", "-l", "INFO", "-s", str(schedule), "--pidfile="], options)

    def output(self, process: subprocess.Popen[bytes]) -> str:
        """Return the output so far."""
        return self.logs[process.pid].read_text(errors="replace")

    def _start(self, arguments: list[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        file = self._folder / f"celery{time.monotonic_ns()}.log"
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tasks_celery", *arguments],
            cwd=self._folder,
            env={**self._environment, "TASKS_OPTIONS": json.dumps(options)},
            stdout=self._stack.enter_context(file.open("wb")),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._stack.callback(end_group, process)
        self.logs[process.pid] = file
        return process


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
