"""API of a running task: progress reports, cancellation, and commit together with its effects."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Final

from mks_hardening.exceptions import TaskCancelledError, TaskLostError
from mks_hardening.tasks._payload import dump, storable

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mks_hardening.protocols import Clock
    from mks_hardening.tasks.store._task_rows import LeasedTask
    from mks_hardening.tasks.store._task_store import TaskStore

__all__ = ["TaskRun"]

_BETWEEN_REPORTS: Final = 0.1
"""Seconds; more than ten reports per second would block SQLite's single writer."""
_ENDED: Final = "the task has ended with its commit; report and have effects elsewhere before it"


class TaskRun:
    """One run of a task; passed to its function as the first argument.

    Attributes:
        id: id of the task.
        key: idempotency key it was enqueued with.
        user_id: user who owns the task.
        attempt: 1 for the first run, incremented by each retry.
        delivery: 1 for the first run, incremented by each worker that died while running the task.
        leased: the row and its lease, for the worker.
        finished: whether ``commit`` has recorded the end.
        lost: set when the lease is lost and another worker may run the task.
    """

    __slots__ = (
        "_clock",
        "_has_writer",
        "_reported_at",
        "_store",
        "attempt",
        "delivery",
        "finished",
        "id",
        "key",
        "leased",
        "lost",
        "user_id",
    )

    def __init__(self, store: TaskStore, task: LeasedTask, *, clock: Clock) -> None:
        self._store = store
        self.leased: LeasedTask = task
        self._clock = clock
        self._has_writer = False
        # The first report is always stored.
        self._reported_at = float("-inf")
        self.id: str = task.id
        self.key: str | None = task.unique_key
        self.user_id: str | None = task.user_id
        self.attempt: int = task.attempts + 1
        self.delivery: int = task.deliveries
        self.finished: bool = False
        self.lost: Event = Event()

    @property
    def message_id(self) -> str:
        """``Message-ID`` that is the same in every run, so that duplicates can be recognised (RFC 5322, 3.6.4)."""
        return f"<{self.id}@tasks.mks-hardening.invalid>"

    def check(self) -> None:
        """Check in the database that this run still holds the lease; call it right before an external effect.

        Raises:
            TaskLostError: the lease is lost and another worker may run the task; do not cause the effect.
            TaskCancelledError: the task was cancelled.
        """
        # The database is checked instead of the lease thread, which may have been paused together with this process
        # (SIGSTOP, a closed laptop, a live migration).
        self._raise_if_stopped(None if self.lost.is_set() else self._store.holds(self.leased))

    def progress(self, done: float, stage: str = "") -> None:
        """Report progress; stored at most ten times per second, and always at the end.

        Within ``commit`` nothing is stored on SQLite, because that transaction holds its single writer.

        Args:
            done: completed share, 0 to 1.
            stage: description of the current stage, at most 200 characters.

        Raises:
            TaskLostError: the lease is lost and another worker may run the task.
            TaskCancelledError: the task was cancelled.
        """
        now = self._clock.monotonic()
        # The last report is always stored, or a task would stay at 97 % forever.
        if now - self._reported_at < _BETWEEN_REPORTS and done < 1.0:
            return
        self._reported_at = now
        if self._has_writer:
            return
        self._raise_if_stopped(
            self._store.report(
                self.leased, progress=min(1.0, max(0.0, done)), stage=storable(stage, most=200)
            )
        )

    @contextmanager
    def commit(self, result: object = None) -> Generator[Connection]:
        """Open a transaction that also ends the task: its changes and the state ``done`` are committed together.

        Args:
            result: result of the task; JSON of at most 64 kB.

        Raises:
            TaskLostError: another worker has leased the task; all changes of the block are rolled back.
            TaskRefusedError: the result is not JSON, or too long.
        """
        text = dump(result, what="result")
        with self._store.engine.begin() as connection:
            self._has_writer = self._store.engine.dialect.name == "sqlite"
            try:
                yield connection
            finally:
                self._has_writer = False
            # At the end of the transaction: the row stays locked as briefly as possible.
            if not self._store.finish(self.leased, result=text, connection=connection):
                self.lost.set()
                # Raised inside of the `with`, so the changes are rolled back.
                raise self._lost_error("another worker has taken the task; nothing was written")
        self.finished = True

    def _raise_if_stopped(self, cancelled: bool | None) -> None:  # noqa: FBT001 - handles the store's result in one place
        if cancelled is None:
            self.lost.set()
            raise self._lost_error("the lease expired; another worker may have the task")
        if cancelled:
            raise TaskCancelledError("the task was asked to stop")

    def _lost_error(self, reason: str) -> TaskLostError:
        return TaskLostError(_ENDED if self.finished else reason)
