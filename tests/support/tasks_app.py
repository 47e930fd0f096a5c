"""An application with tasks, for tests; as a program, it is a worker that runs until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, create_engine, text

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Every, TaskRun, Tasks, TaskWorker

LEASE = 1.5


class ShiftedClock:
    """The clock of a host with a clock offset, in seconds, read from a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.monotonic = time.monotonic

    def time(self) -> float:
        """Return the wall time of this host."""
        return time.time() + float(self._file.read_text() or 0)


def make(
    url: str, *, scheduled: bool = False, plain: bool = False, old: bool = False, shift: Path | None = None
) -> Tasks:
    """Return the tasks of the database; missing tables are created.

    Args:
        url: of the database.
        scheduled: with a task that runs each second.
        plain: on an engine of SQLAlchemy itself.
        old: the code of before the last deploy, which lacks a task.
        shift: file with the error of the clock, in seconds.
    """
    engine = create_engine(url) if plain else hardened_engine(url)
    tasks = Tasks(engine, clock=None if shift is None else ShiftedClock(shift))
    tasks.create_table()
    with tasks.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS effect (task TEXT, worker TEXT)"))
    define_effects(tasks)
    define_limits(tasks)
    if scheduled:

        @tasks.task("tick", schedule=Every(1.0))
        def tick(run: TaskRun) -> None:
            with run.commit() as connection:
                write(connection, run.id, "tick")

    if not old:

        @tasks.task("new")
        def new(run: TaskRun) -> None:
            with run.commit() as connection:
                write(connection, run.id)

    return tasks


def write(connection: Connection, task: str, worker: str | None = None) -> None:
    """An effect in the database."""
    values = {"task": task, "worker": worker or str(os.getpid())}
    connection.execute(text("INSERT INTO effect VALUES (:task, :worker)"), values)


def define_effects(tasks: Tasks) -> None:
    """Define tasks with effects in the database and elsewhere, and one that kills the worker."""

    @tasks.task("effect")
    def effect(run: TaskRun, pause: float = 0.0) -> None:
        """An effect in the database, committed together with the task."""
        time.sleep(pause)
        with run.commit() as connection:
            write(connection, run.id)

    @tasks.task("outside")
    def outside(run: TaskRun, file: str, pause: float = 0.0, after: float = 0.0) -> None:
        """An effect elsewhere, between a pause that may outlast the lease and one that may kill the worker."""
        Path(file).with_suffix(".started").touch()
        time.sleep(pause)
        run.check()
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(f"{run.id}\n")
        time.sleep(after)

    @tasks.task("poison", max_deliveries=2)
    def poison(run: TaskRun) -> None:
        """Kills the worker on every run."""
        os.kill(os.getpid(), signal.SIGKILL)

    @tasks.task("speak")
    def speak(run: TaskRun, secret: str) -> None:
        """Logs a record with secrets."""
        logging.getLogger("app").warning("signed in with password=%s", secret)


def define_limits(tasks: Tasks) -> None:
    """Define tasks that exceed their time limit, and one that is interrupted."""

    @tasks.task("tidy", timeout=1)
    def tidy(run: TaskRun, file: str) -> None:
        """Cleans up when its time limit is reached."""
        try:
            time.sleep(60)
        finally:
            Path(file).write_text("cleaned up", encoding="utf-8")

    @tasks.task("stubborn", timeout=1, max_deliveries=1)
    def stubborn(run: TaskRun, file: str) -> None:
        """Ignores everything but SIGKILL."""
        with Path(file).open("a", encoding="utf-8") as out:
            out.write("run\n")
        while True:
            with suppress(BaseException):
                time.sleep(60)

    @tasks.task("long")
    def long(run: TaskRun, file: str) -> None:
        """Is interrupted on the first run, and completes on the second."""
        first = not Path(file).exists()
        Path(file).touch()
        if first:
            time.sleep(60)
        with run.commit() as connection:
            write(connection, run.id)


def main() -> None:
    """Run until SIGTERM, then finish the running tasks."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    url, *options = sys.argv[1:]
    shift = [Path(option.partition("=")[2]) for option in options if option.startswith("--shift=")]
    tasks = make(url, scheduled="--scheduled" in options, shift=shift[0] if shift else None)
    with TaskWorker(tasks, lease=LEASE, poll=0.05):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not ended.wait(0.1):
            pass


if __name__ == "__main__":
    main()
