"""What a running task can do: report, be asked to stop, and end together with its effects in the database."""

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
"""Seconds: more reports than ten a second would keep SQLite's one writer from everybody else."""
_ENDED: Final = "the task has ended with its commit; report and have effects elsewhere before it"


class TaskRun:
    """One run of a task; handed to its function as the first argument.

    Attributes:
        id: of the task.
        key: the idempotency key it was enqueued with.
        user_id: whose it is.
        attempt: 1 at the first run, one more after each retry.
        delivery: 1 at the first run, one more after each worker that died over it.
        taken: the row and its lease, for the worker.
        finished: whether ``commit`` has recorded the end.
        lost: set when another worker may have the task.
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
        "lost",
        "taken",
        "user_id",
    )

    def __init__(self, store: TaskStore, task: LeasedTask, *, clock: Clock) -> None:
        self._store = store
        self.taken: LeasedTask = task
        self._clock = clock
        self._has_writer = False
        # The first report is always written.
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
        """A ``Message-ID`` that is the same in every run, for mail that must be recognised (RFC 5322, 3.6.4)."""
        return f"<{self.id}@tasks.mks-hardening.invalid>"

    def check(self) -> None:
        """Ask the database whether the task is still this run's; call it right before an effect elsewhere.

        Raises:
            TaskLostError: another worker may have it; have no effect.
            TaskCancelledError: it was asked to stop.
        """
        # Asked of the database and not of the lease thread: that one may have been stopped together with this
        # process (SIGSTOP, a laptop's lid, a live migration).
        self._heed(None if self.lost.is_set() else self._store.holds(self.taken))

    def progress(self, done: float, stage: str = "") -> None:
        """Say how far it is; written at most ten times a second, and always at the end.

        Within ``commit`` nothing is written on SQLite, whose one writer is that transaction.

        Args:
            done: share that is done, 0 to 1.
            stage: what is being done, at most 200 characters.

        Raises:
            TaskLostError: another worker may have it.
            TaskCancelledError: it was asked to stop.
        """
        now = self._clock.monotonic()
        # The last one always, or a task would stay at 97 % for ever.
        if now - self._reported_at < _BETWEEN_REPORTS and done < 1.0:
            return
        self._reported_at = now
        if self._has_writer:
            return
        self._heed(
            self._store.report(self.taken, progress=min(1.0, max(0.0, done)), stage=storable(stage, most=200))
        )

    @contextmanager
    def commit(self, result: object = None) -> Generator[Connection]:
        """A transaction that ends the task: what is written in it and ``done`` are committed together, or neither.

        Args:
            result: what the task gives; JSON of at most 64 kB.

        Raises:
            TaskLostError: another worker has it; everything in the block is rolled back.
            TaskRefusedError: the result is not JSON, or too long.
        """
        text = dump(result, what="result")
        with self._store.engine.begin() as connection:
            self._has_writer = self._store.engine.dialect.name == "sqlite"
            try:
                yield connection
            finally:
                self._has_writer = False
            # At the end of the transaction and not at its begin: the row stays locked for as short as it can.
            if not self._store.finish(self.taken, result=text, connection=connection):
                self.lost.set()
                # Raised inside of the `with`, so the effects are rolled back.
                raise self._gone("another worker has taken the task; nothing was written")
        self.finished = True

    def _heed(self, asked: bool | None) -> None:  # noqa: FBT001 - the answer of the store, in one place
        if asked is None:
            self.lost.set()
            raise self._gone("the lease ran out; another worker may have the task")
        if asked:
            raise TaskCancelledError("the task was asked to stop")

    def _gone(self, said: str) -> TaskLostError:
        return TaskLostError(_ENDED if self.finished else said)
