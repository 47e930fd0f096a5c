"""What a process of the pool does with a message."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from mks_hardening.tasks import TaskWorker

if TYPE_CHECKING:
    from mks_hardening.tasks import Tasks

__all__ = ["PoolProcess"]


class PoolProcess:
    """Runs the rows that messages name; its worker is made in the process of the pool, after the fork.

    Args:
        tasks: what may run, and where the rows are.
        queues: whose schedules and rows are served.
        lease: seconds of one lease.
    """

    def __init__(self, tasks: Tasks, *, queues: Sequence[str], lease: float) -> None:
        self._tasks = tasks
        self._queues = queues
        self._lease = lease
        self._lock = threading.RLock()
        self._pid = 0
        self._worker: TaskWorker | None = None
        self._leaving = threading.Event()

    def run(self, task_id: str) -> str | None:
        """Run a task if it is due and nobody else has it."""
        return self._here().run_one(task_id, is_leaving=self._leaving.is_set)

    def tick(self) -> None:
        """Enqueue what is due by schedule; for beat."""
        self._here().enqueue_scheduled()

    def _here(self) -> TaskWorker:
        # At the first task and not at the fork: the pool sets signal handlers of its own in between.
        if self._pid != os.getpid():
            self._pid, self._worker = os.getpid(), None
            self._lock, self._leaving = threading.RLock(), threading.Event()
            # Signals can be set in the main thread alone, and pools of threads end another way.
            if threading.current_thread() is threading.main_thread():
                self._notice_the_end()
        with self._lock:
            if self._worker is None:
                self._worker = TaskWorker(self._tasks, queues=self._queues, lease=self._lease)
            return self._worker

    def _notice_the_end(self) -> None:
        """Tell a ``SystemExit`` of the pool, which ends the process, from one that a task raises."""
        before = signal.getsignal(signal.SIGTERM)
        if not callable(before):
            return

        def told(number: int, frame: FrameType | None) -> None:
            try:
                before(number, frame)
            except SystemExit:
                self._leaving.set()
                raise

        signal.signal(signal.SIGTERM, told)
