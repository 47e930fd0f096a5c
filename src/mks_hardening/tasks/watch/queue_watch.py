"""An alert when nobody works the queue, and one line when somebody does again."""

from __future__ import annotations

import logging
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Self

from mks_hardening._core import hooks
from mks_hardening._core.checks import offers
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening.events import TaskQueueSeen
from mks_hardening.tasks._outage_log import OutageLog
from mks_hardening.tasks.watch.task_stats import TaskStats

if TYPE_CHECKING:
    from mks_hardening.tasks.tasks import Tasks

__all__ = ["TaskQueueWatch"]

_logger: Final = logging.getLogger("mks_hardening.tasks")


class TaskQueueWatch(Closing):
    """Looks at the queue from time to time, where no worker runs: in a web process, or beside it.

    One record of level ERROR, and so one alert, when a due task has waited for too long or when no worker has known
    a task's name for longer than a deploy takes; one of level WARNING when that is over. Each look is told to
    observers as ``mks_hardening.events.TaskQueueSeen``. ``with TaskQueueWatch(tasks):`` starts it.

    Args:
        tasks: where the rows are.
        longest: seconds that a due task may wait.
        deploy: seconds that a task may wait for a worker that knows its name, from its enqueuing.
        every: seconds between two looks.

    Raises:
        ConfigurationError: out of range.
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
        self._told = dict[str, bool]()
        self._outage = OutageLog()
        self._ended = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread; harmless when it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._ended.clear()
            self._thread = Thread(target=self._watch, name="mks-task-watch", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def close(self) -> None:
        """Look no more; harmless when called twice."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> TaskStats:
        """Look once, tell what began or ended since the last look, and give what was seen."""
        # No window, as only what stands in the queue matters here and recent ends cost a scan.
        seen = self._tasks.stats(window=0)
        waited, homeless = seen.oldest_due or 0.0, seen.oldest_unknown or 0.0
        stalled = waited > self._longest
        self._tell(
            "stalled",
            stalled,
            f"nobody works the queue of tasks: {seen.due} are due, the oldest for {waited:.0f} s",
            "the queue of tasks is worked again",
        )
        self._tell(
            "unknown",
            homeless > self._deploy,
            f"no worker knows {seen.unknown} tasks, the oldest of {homeless:.0f} s ago; has a deploy stopped?",
            "the tasks that no worker knew have found one",
        )
        if hooks.observers:
            hooks.emit(TaskQueueSeen(seen.due, waited, seen.running, seen.dead, stalled))
        return seen

    def _tell(self, fault: str, is_there: bool, began: str, over: str) -> None:  # noqa: FBT001 - private, by position
        was, self._told[fault] = self._told.get(fault, False), is_there
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
                self._outage.over()
            except Exception as error:  # noqa: BLE001 - whatever the database raises, it is asked again
                # Soon again, as the first look after an outage ends the alert.
                wait = self._outage.began(error)
