"""Renewal of the leases of all tasks that a worker runs, on one thread."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mks_hardening.tasks.task_run import TaskRun

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.tasks.store._task_store import TaskStore

__all__ = ["LEASE", "LeaseRenewer"]

LEASE: Final = 30.0
"""Default lease in seconds, after which another worker takes over the tasks of a worker that stopped renewing."""

_RENEWALS: Final = 5
"""Renewals per lease: four may fail before the lease expires."""
_logger: Final = logging.getLogger("mks_hardening.tasks")


@dataclass(slots=True)
class _TaskLease:
    run: TaskRun
    stuck_at: float
    reported: bool = False


class LeaseRenewer:
    """Renew the leases of running tasks, and report tasks that exceed their timeout.

    Args:
        store: store of the task rows.
        lease: duration of a lease in seconds.
        clock: monotonic clock for durations.
    """

    def __init__(self, store: TaskStore, *, lease: float, clock: Clock) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        # By owner: two threads may run the same task if a lease expired in between.
        self._leases = dict[str, _TaskLease]()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._started = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Enable the renewal thread; it runs only while there are leases, so occasional runs leave none behind."""
        self._started = True

    def add(self, run: TaskRun, *, timeout: float) -> None:
        """Renew the lease of a run from now on, and report the run after ``timeout`` seconds."""
        with self._lock:
            if self._started and self._thread is None:
                thread = threading.Thread(target=self._work, name="mks-task-leases", daemon=True)
                thread.start()
                self._thread = thread
            self._leases[run.leased.owner] = _TaskLease(run, self._clock.monotonic() + timeout)

    def remove(self, run: TaskRun) -> None:
        """Stop renewing the lease of a run."""
        with self._lock:
            self._leases.pop(run.leased.owner, None)

    def close(self, timeout: float | None = None) -> None:
        """Stop renewing all leases; wait at most ``timeout`` seconds for a database that does not respond."""
        with self._lock:
            self._started, thread = False, self._thread
        self._ended.set()
        if thread is not None:
            thread.join(timeout)

    def renew_all(self) -> None:
        """Renew all leases once and mark the runs whose lease was lost."""
        with self._lock:
            leases = list(self._leases.values())
        if not leases:
            return
        # One statement for all leases, outside of the lock: a slow database must not delay the end of a task.
        renewed = self._store.renew([one.run.leased for one in leases], lease=self._lease)
        for one in leases:
            # A run that ended between the copy and the response is not in `renewed` either, but has lost nothing.
            if one.run.leased.owner not in renewed and not one.run.finished:
                one.run.lost.set()
            self._report(one)

    def _report(self, one: _TaskLease) -> None:
        if not one.reported and self._clock.monotonic() >= one.stuck_at:
            one.reported = True
            _logger.error("the task %s (%s) runs longer than its timeout", one.run.leased.name, one.run.id)

    def _work(self) -> None:
        while not self._ended.wait(self._lease / _RENEWALS):
            with self._lock:
                if not self._leases:
                    self._thread = None
                    return
            try:
                self.renew_all()
            except Exception:
                _logger.exception("the leases could not be renewed; renewal is retried")
