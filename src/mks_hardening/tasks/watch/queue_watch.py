"""Alert if no worker runs the due tasks, and a log record when tasks are run again."""

from __future__ import annotations

import logging
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Self

from mks_hardening._core import hooks
from mks_hardening._core.checks import offers
from mks_hardening._core.closing import Closing
from mks_hardening._core.database.error_text import error_summary
from mks_hardening._core.durations import seconds
from mks_hardening.events import TaskQueueSeen
from mks_hardening.tasks._table_outage import table_outage_log
from mks_hardening.tasks.watch.task_stats import TaskStats

if TYPE_CHECKING:
    from mks_hardening.tasks.tasks import Tasks

__all__ = ["TaskQueueWatch"]

_logger: Final = logging.getLogger("mks_hardening.tasks")


class TaskQueueWatch(Closing):
    """Periodic check of the queue, for processes without a worker: in a web process, or on its own.

    It logs one record at level ERROR, and so causes one alert, if a due task has waited for too long, or if no
    worker has known a task's name for longer than a deployment takes; and one at level WARNING when this has ended.
    Each check emits ``mks_hardening.events.TaskQueueSeen``. ``with TaskQueueWatch(tasks):`` starts the thread.

    Args:
        tasks: ``Tasks`` to monitor.
        longest: seconds that a due task may wait.
        deploy: seconds that a task may wait for a worker that knows its name, from its enqueuing.
        every: seconds between two checks.

    Raises:
        ConfigurationError: a parameter is out of range.
    """

    def __init__(
        self,
        tasks: Tasks,
        *,
        longest: float | timedelta = 300.0,
        deploy: float | timedelta = 900.0,
        every: float | timedelta = 30.0,
    ) -> None:
        self._tasks = offers(tasks, "task", "begin", parameter="tasks", kind="a Tasks")
        self._longest = seconds(longest, parameter="longest", allow_zero=False)
        self._deploy = seconds(deploy, parameter="deploy", allow_zero=False)
        self._every = seconds(every, parameter="every", minimum=0.1)
        self._reported = dict[str, bool]()
        self._outage = table_outage_log()
        self._ended = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread; does nothing if it is running."""
        if self._thread is None or not self._thread.is_alive():
            self._ended.clear()
            self._thread = Thread(target=self._watch, name="mks-task-watch", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def close(self) -> None:
        """Stop checking; idempotent."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> TaskStats:
        """Check once, log what began or ended since the last check, and return the statistics."""
        # Without a window, as only tasks that have not ended matter here, and recent ones would cost a scan.
        seen = self._tasks.stats(window=0)
        waited, unknown = seen.oldest_due or 0.0, seen.oldest_unknown or 0.0
        stalled = waited > self._longest
        self._report(
            "stalled",
            stalled,
            f"no worker runs the queue of tasks: {seen.due} are due, the oldest for {waited:.0f} s",
            "workers run the queue of tasks again",
        )
        self._report(
            "unknown",
            unknown > self._deploy,
            f"no worker knows {seen.unknown} tasks, the oldest of {unknown:.0f} s ago; is a deployment incomplete?",
            "workers know all tasks again",
        )
        if hooks.observers:
            hooks.emit(TaskQueueSeen(seen.due, waited, seen.running, seen.dead, stalled))
        return seen

    def _report(self, problem: str, is_there: bool, began: str, over: str) -> None:  # noqa: FBT001 - private, by position
        was, self._reported[problem] = self._reported.get(problem, False), is_there
        if is_there and not was:
            _logger.error(began)
        elif was and not is_there:
            _logger.warning(over)

    def _watch(self) -> None:
        wait = 0.0
        while not self._ended.wait(wait):
            wait = self._every
            try:
                self.look()
                self._outage.succeeded()
            except Exception as error:  # noqa: BLE001 - retry after any error of the database
                # Soon, as the first check after an outage ends the alert.
                wait = self._outage.failed(error_summary(error))
