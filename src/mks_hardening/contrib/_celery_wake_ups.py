"""Wake-up messages for due rows, so that idle workers look at them immediately."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mks_hardening._core.checks import offers, strings, whole_number
from mks_hardening._core.closing import Closing
from mks_hardening._core.database.error_text import error_summary
from mks_hardening._core.durations import seconds
from mks_hardening.contrib._celery_settings import BROKER_TIMEOUT, RUN
from mks_hardening.tasks import TaskWorker
from mks_hardening.tasks.store._wake_ups import WakeUp, WakeUps

if TYPE_CHECKING:
    from datetime import timedelta

    from celery import Celery

    from mks_hardening.tasks import Tasks

__all__ = ["KILL_GRACE", "RING_AGAIN_AFTER", "FromCelery", "TaskNotifier"]

FromCelery: TypeAlias = Any
"""An object from Celery, which ships no types."""

RING_AGAIN_AFTER: Final = 30.0
"""Default seconds after which a row that was announced and not taken is announced again."""
KILL_GRACE: Final = 10.0
"""Default seconds between the soft and the hard limit of a task."""
_FEW: Final = 100
"""Number of messages below which a queue counts as quiet: its workers emptied it, or its messages were lost."""
_logger: Final = logging.getLogger("mks_hardening.tasks")


class TaskNotifier(Closing):
    """Thread that sends wake-up messages for due rows through the broker, in a worker or a web process.

    Each worker of ``celery_app`` has one. A row is announced once, and again if it was not taken and its queue is
    quiet. A broker that has lost its messages therefore gets them again, and a long queue is not filled with
    duplicates.

    Args:
        tasks: the task definitions and their store.
        app: application from ``celery_app``.
        queues: queues whose rows are announced; by default those of ``celery_app``.
        poll: seconds between two queries of the table.
        again_after: seconds after which a row that was announced and not taken is announced again.
        most: maximum number of rows announced per query.
        kill_grace: seconds between the soft limit of a task, which it can handle, and the hard one.

    Raises:
        ConfigurationError: a parameter is out of range.
    """

    def __init__(
        self,
        tasks: Tasks,
        app: Celery,
        *,
        queues: Sequence[str] | None = None,
        poll: float | timedelta = 0.3,
        again_after: float | timedelta = RING_AGAIN_AFTER,
        most: int = 200,
        kill_grace: float | timedelta = KILL_GRACE,
    ) -> None:
        self._tasks = offers(tasks, "task", "begin", parameter="tasks", kind="a Tasks")
        self._app: FromCelery = offers(app, "send_task", parameter="app", kind="a Celery")
        known = [queue.name for queue in self._app.conf.task_queues or ()]
        self._queues = strings(known if queues is None else queues, parameter="queues", of="queues")
        self._wake_ups = WakeUps(tasks.store)
        self._poll = seconds(poll, parameter="poll", minimum=0.01)
        self._again_after = seconds(again_after, parameter="again_after", minimum=1.0)
        self._most = whole_number(most, parameter="most", minimum=1, maximum=10_000)
        self._kill_grace = seconds(kill_grace, parameter="kill_grace", allow_zero=False)
        self._scheduler = TaskWorker(tasks)
        self._ended = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread; does nothing if it is running."""
        if self._thread is None or not self._thread.is_alive():
            self._ended.clear()
            self._thread = Thread(target=self._work, name="mks-task-notifier", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread; may be called twice."""
        self._ended.set()

    def announce(self) -> int:
        """Announce up to ``most`` rows that are due now; returns their number.

        Raises:
            Exception: any exception of the broker's client; rows that were not announced are retried at the next
                query.
        """
        announced = 0
        # Without a producer: kombu would take an error of the database for one of the broker, and would return its
        # closed connection to the pool.
        due = self._wake_ups.due(
            queues=self._queues, again_after=self._again_after, most=self._most, is_quiet=self._is_quiet
        )
        try:
            if due:
                with self._app.producer_pool.acquire(block=True, timeout=BROKER_TIMEOUT) as producer:
                    for wake_up in due:
                        self._send(wake_up, producer)
                        announced += 1
        finally:
            # Rows that could not be sent are already marked as announced, and would otherwise wait for
            # `again_after`.
            self._wake_ups.unmark(due[announced:])
        return announced

    def _is_quiet(self, queue: str) -> bool:
        # Not a connection of the pool: after an error kombu closes it and returns it there. Sending opens it again,
        # but reading the length of a queue does not.
        with self._app.connection_for_write() as connection:
            return _messages(connection, queue) < _FEW

    def _send(self, wake_up: WakeUp, producer: FromCelery) -> None:
        task = self._tasks.known.get(wake_up.name)
        self._app.send_task(
            RUN,
            args=[wake_up.task_id],
            queue=wake_up.queue,
            priority=wake_up.priority,
            producer=producer,
            # kombu would retry right here; the row is kept, and the next query announces it again.
            retry=False,
            ignore_result=True,
            # Per message, because each task has its own limit and Celery knows only one task of ours.
            soft_time_limit=None if task is None else task.timeout,
            time_limit=None if task is None else task.timeout + self._kill_grace,
        )

    def _work(self) -> None:
        wait, logged = 0.0, ""
        while not self._ended.wait(wait):
            wait, error_text = self._poll, ""
            for step in (self._scheduler.enqueue_scheduled, self._announce_all):
                try:
                    step()
                except Exception as error:  # noqa: BLE001 - broker or database unavailable; the rows are kept
                    wait, error_text = BROKER_TIMEOUT, error_summary(error)
            if error_text and error_text != logged:
                _logger.warning("tasks cannot be announced (%s); they wait in the table", error_text)
            elif logged and not error_text:
                _logger.warning("tasks are announced again")
            logged = error_text

    def _announce_all(self) -> None:
        while self.announce() == self._most and not self._ended.is_set():
            pass


def _messages(connection: FromCelery, queue: str) -> int:
    """Return the number of waiting messages; 0 if the queue does not exist, as after a loss of all data."""
    with connection.channel() as channel:
        try:
            # A separate channel: a passive declaration of a missing queue closes the channel (AMQP 0-9-1, 404).
            found: int = channel.queue_declare(queue=queue, passive=True).message_count
        except connection.channel_errors:
            return 0
    return found
