"""Bounded queue in front of slow handlers: the logging thread only enqueues."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from typing import Any, Final, Literal

from mks_hardening._core.checks import instances, level_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.message_templates import Templates
from mks_hardening._core.redaction.plain_data import Bounds, is_a, to_plain
from mks_hardening._core.redaction.record_attributes import (
    CONTEXT_ATTRIBUTE,
    STANDARD_ATTRIBUTES,
    STANDARD_NAMES,
)
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.handlers._error_report import HandlerErrorReport

__all__ = ["BoundedQueueHandler"]

_UNCHANGING: Final = frozenset((str, int, float, bool, type(None)))


class BoundedQueueHandler(logging.Handler):
    """Pass records to other handlers on a background thread.

    Safe to use in signal handlers, and never blocks. If the queue is full, the new record (or the oldest one) is
    dropped and counted. The exception object is kept, so that the handlers can still log its structure; values that
    may change after the call (arguments, containers) are rendered on the logging thread. ``close`` and
    ``logging.shutdown`` drain the queue.

    Args:
        handlers: handlers that receive the records; each keeps its own level and filters.
        level: minimum level of records.
        max_queue: maximum number of queued records.
        overflow: ``drop_new`` or ``drop_oldest``.
        timeout: seconds that ``close`` waits for the queue to drain.

    Raises:
        ConfigurationError: there are no handlers, or a queue parameter is invalid.
    """

    def __init__(
        self,
        handlers: Sequence[logging.Handler],
        *,
        level: int | str = 0,
        max_queue: int = 10_000,
        overflow: Literal["drop_new", "drop_oldest"] = "drop_new",
        timeout: float = 5.0,
    ) -> None:
        listed = instances(handlers, logging.Handler, parameter="handlers")
        if not listed:
            raise ConfigurationError("handlers must be one or more logging handlers", parameter="handlers")
        super().__init__(level_number(level))
        self.handlers: tuple[logging.Handler, ...] = listed
        self._timeout = seconds(timeout, parameter="timeout")
        self._templates = Templates(default_redactor().is_secret_key)
        self._report = HandlerErrorReport("log queue")
        self._is_stuck = False
        self._worker: BackgroundWorker[logging.LogRecord] = BackgroundWorker(
            self._deliver, name="mks-log-queue", max_queue=max_queue, overflow=overflow, leftover=self._lost
        )

    @property
    def dropped(self) -> int:
        """Number of records dropped because the queue was full."""
        return self._worker.dropped

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and enqueue without acquiring a lock, so that a signal handler may log."""
        passed: Any = self.filter(record)
        if isinstance(passed, logging.LogRecord):
            record = passed
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Enqueue a snapshot of the record."""
        try:
            snapshot = self.prepare(record)
            if not self._worker.put(snapshot):
                if self._is_stuck:  # handlers that have held up the worker would hold up this thread as well
                    self._lost([snapshot])
                # Rejected although nothing is queued: the worker was drained at exit, before logging.shutdown.
                elif self._worker.pending == 0:
                    self._deliver(snapshot)
                else:
                    self._report.failed("queue is full")
        except Exception as error:  # noqa: BLE001 - logging must not break the application
            self._report.failed(type(error).__name__)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a copy of the record that no longer changes."""
        # Other handlers continue to use the record on this thread.
        snapshot = copy(record)
        data = snapshot.__dict__
        args = record.args
        if type(record.msg) is not str or not (
            not args or (type(args) is tuple and all(type(value) in _UNCHANGING for value in args))
        ):
            if is_a(record.msg, dict):
                data["msg"] = to_plain(record.msg, Bounds())
            else:
                data["msg"] = self._templates.render(record)
            data["args"] = None
        if len(data) > len(STANDARD_ATTRIBUTES):
            for name in data.keys() - STANDARD_NAMES:
                if type(data[name]) not in _UNCHANGING:
                    data[name] = to_plain(data[name], Bounds())
        context = fields_var.get()
        if context:
            # The context belongs to this thread; the background thread has another one.
            data.setdefault(CONTEXT_ATTRIBUTE, context)
        return snapshot

    def flush(self) -> None:
        """Wait until all queued records are handled, for at most ``timeout`` seconds."""
        if not self._worker.is_current_thread:
            self._worker.flush(self._timeout)
        for handler in self.handlers:
            handler.flush()

    def close(self) -> None:
        """Drain the queue; records that are not handled in time, and all later ones then, are counted as lost."""
        self._worker.close(self._timeout)
        super().close()

    def _deliver(self, record: logging.LogRecord) -> None:
        for handler in self.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def _lost(self, records: list[logging.LogRecord]) -> None:
        self._is_stuck = True
        self._report.failed("queue was not drained in time", lost=len(records))
