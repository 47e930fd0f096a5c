"""Message handling in a pool process."""

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
    """Task runner of a pool process, for the rows named in messages; its worker is created after the fork.

    Args:
        tasks: the task definitions and their store.
        queues: queues whose schedules and rows are served.
        lease: duration of a lease in seconds.
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
        """Run a task if it is due and no other worker has it."""
        return self._process_worker().run_one(task_id, is_leaving=self._leaving.is_set)

    def tick(self) -> None:
        """Enqueue scheduled tasks that are due; for beat."""
        self._process_worker().enqueue_scheduled()

    def _process_worker(self) -> TaskWorker:
        # On first use and not at the fork: the pool sets its own signal handlers in between.
        if self._pid != os.getpid():
            self._pid, self._worker = os.getpid(), None
            self._lock, self._leaving = threading.RLock(), threading.Event()
            # Signal handlers can be set in the main thread only, and pools of threads end differently.
            if threading.current_thread() is threading.main_thread():
                self._watch_sigterm()
        with self._lock:
            if self._worker is None:
                self._worker = TaskWorker(self._tasks, queues=self._queues, lease=self._lease)
            return self._worker

    def _watch_sigterm(self) -> None:
        """Distinguish a ``SystemExit`` of the pool, which ends the process, from one raised by a task."""
        before = signal.getsignal(signal.SIGTERM)
        if not callable(before):
            return

        def on_sigterm(number: int, frame: FrameType | None) -> None:
            try:
                before(number, frame)
            except SystemExit:
                self._leaving.set()
                raise

        signal.signal(signal.SIGTERM, on_sigterm)
