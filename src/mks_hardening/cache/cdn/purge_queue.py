"""Purge a CDN in the background, with few requests."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import RLock
from typing import Final

from mks_hardening._core.checks import offers, path_text, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.process import exit_hooks
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening._core.resilience.outage_log import OutageLog
from mks_hardening.cache.cdn._purge_backlog import PurgeBacklog, PurgeStats
from mks_hardening.cache.cdn._purge_spool import PurgeSpool
from mks_hardening.cache.cdn.base_cdn import BaseCDN, result_of
from mks_hardening.cache.cdn.purge_item import PurgeItem
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["PurgeQueue", "PurgeStats"]

_RETRY_AFTER: Final = 30.0
_AT_EXIT: Final = 5.0
"""Seconds for which the end of a process waits; gunicorn kills a worker a second later (``gunicorn_config``)."""
_POLL: Final = 0.01
_logger = logging.getLogger("mks_hardening.cache")


class PurgeQueue(BaseCDN):
    """A CDN whose purges are collected for a short time and sent together, in the background.

    A purge returns at once; its items are ``queued`` in the result. Within ``window`` seconds they are sent, in
    order, in as few requests as the service allows. While the service is unavailable or asks to wait
    (``Retry-After``), items are kept and sent later. An item that the service refuses, or that cannot be purged
    within ``max_age``, is dropped: that is logged and counted.

    Each process has a queue of its own. ``close`` sends what is pending, as does the end of the process, for at
    most five seconds; what cannot be sent then stays in the spool, if there is one. The next process continues with
    it when it creates the queue, and any other one after its next purges.

    Args:
        cdn: the CDN; not closed by this object.
        window: seconds between the first item and the request.
        max_items: maximum number of items; beyond it, a purge fails with ``retry_after``.
        max_age: seconds for which an item is tried, for example the longest lifetime in the CDN.
        spool: folder for pending items, which survive the end of the process there, however it ends (but not a
            power failure). Processes may share it. None: they are lost when a process is killed.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    def __init__(
        self,
        cdn: BaseCDN,
        *,
        window: float | timedelta = 1,
        max_items: int = 10_000,
        max_age: float | timedelta = 3600,
        spool: str | os.PathLike[str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._cdn = offers(cdn, "send_items", "check_items", "refusal", parameter="cdn", kind="a CDN")
        self._window = seconds(window, parameter="window", allow_zero=False)
        self._most = whole_number(max_items, parameter="max_items", minimum=1)
        self._max_age = seconds(max_age, parameter="max_age", allow_zero=False)
        self._clock = given_clock(clock)
        self._spool = (
            None if spool is None else PurgeSpool(Path(path_text(spool, parameter="spool")), repr(cdn))
        )
        self._is_closed = False
        self._is_ended = False
        self._ends_at = float("inf")
        self._outage = OutageLog(
            _logger,
            level=logging.WARNING,
            began="purges of %r wait until the CDN accepts them: %s",
            ended=f"the purges of {cdn!r} that were pending have been sent",
        )
        self._spool_outage = OutageLog(
            _logger,
            began="purges of %r cannot be written to the spool, and are lost if this process is killed: %s",
            ended=f"purges of {cdn!r} are written to the spool again",
        )
        self.reset_after_fork()
        self._thread = IntervalThread(
            self._send_due, every=max(0.05, min(self._window, 1.0) / 2), name="mks-cdn-purge"
        )
        register_after_fork(self)
        # The thread sends while the other callbacks run.
        exit_hooks.on_exit(self._begin_at_exit)
        exit_hooks.on_exit(self._end_at_exit, last=True)
        self._adopt()

    def reset_after_fork(self) -> None:
        """Start with an empty queue in a forked child; the parent sends its own items."""
        self._lock = RLock()
        self._sending = RLock()
        self._backlog = PurgeBacklog(window=self._window, most=self._most, max_age=self._max_age)
        if self._spool is not None:
            self._spool.reset_after_fork()

    def refusal(self, item: PurgeItem) -> str | None:
        """Return why the CDN cannot purge a valid item, or None if it can."""
        return self._cdn.refusal(item)

    def send_items(self, items: Sequence[PurgeItem]) -> PurgeResult:
        """Queue checked items."""
        with self._lock:
            if self._is_closed:
                return PurgeResult.of_items(failed=items, errors=["the queue is closed"])
            new = self._backlog.add(items, self._clock.monotonic())
            if new is None:
                error = f"the queue is full ({self._most} items)"
                return PurgeResult.of_items(failed=items, errors=[error], retry_after=_RETRY_AFTER)
            if new:
                self._write(lambda spool: spool.append(new))
        self._thread.start()
        return PurgeResult.of_items(queued=items)

    def flush(self) -> PurgeStats:
        """Send what is pending without waiting for more, unless the service asked to wait; return the counts."""
        self._send(at_once=True)
        return self.stats()

    def stats(self) -> PurgeStats:
        """Return the counts of this process."""
        with self._lock:
            return self._backlog.stats()

    def close(self) -> None:
        """Send what is pending, within the deadline of the CDN; calling it twice is safe."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._send(at_once=True)
        self._end()

    def _begin_at_exit(self) -> None:
        self._is_closed = True
        self._ends_at = SYSTEM_CLOCK.monotonic() + _AT_EXIT
        if self._is_sending():
            self._thread.start()

    def _end_at_exit(self) -> None:
        try:
            while self._is_sending() and SYSTEM_CLOCK.monotonic() < self._ends_at:
                time.sleep(_POLL)
        finally:  # gevent refuses to wait in a worker that gunicorn has interrupted
            self._end()

    def _is_sending(self) -> bool:
        """Whether items are being sent, or may be sent now."""
        with self._lock:
            return len(self._backlog) > 0 and not self._backlog.is_waiting_for_service(
                self._clock.monotonic()
            )

    def _end(self) -> None:
        """Leave what is pending; does nothing if that was done, as in a process that ends during ``close``."""
        self._thread.close()
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
            left = self._backlog.end(is_spooled=self._spool is not None)
            if self._spool is not None:
                self._spool.release()
        if left:
            where = "are lost" if self._spool is None else "stay in the spool"
            _logger.warning(
                "%d purges of %r were pending when the queue was closed; they %s", left, self._cdn, where
            )

    def __repr__(self) -> str:
        return f"PurgeQueue({self._cdn!r})"

    def _send_due(self) -> bool:
        self._send(at_once=self._is_closed)
        with self._lock:
            return len(self._backlog) > 0

    def _send(self, *, at_once: bool) -> None:
        with self._sending:
            with self._lock:
                if not self._backlog.due(self._clock.monotonic(), at_once=at_once):
                    return
                items = self._backlog.take()
            failed: Iterable[PurgeItem] = items
            errors: tuple[str, ...] = ()
            retry_after: float | None = _RETRY_AFTER
            try:
                result = result_of(self._cdn, items)
                # A CDN of the user may report values only.
                failed = result.failed_items or [item for item in items if item.value in result.failed]
                errors, retry_after = result.errors, result.retry_after
            except ConfigurationError as error:
                errors = (str(error),)
            except Exception as error:  # noqa: BLE001 - a CDN of the user; logged below
                errors = (type(error).__name__,)
            finally:
                self._finish(failed, "; ".join(errors) or "no reason", retry_after)
        # Now, and not only when the object is created: a worker that a preloading server forks has it from its
        # parent. And only while the CDN accepts purges: an item that waits is as safe in its file as in this one.
        if not self._backlog.is_waiting_for_service(self._clock.monotonic()):
            self._adopt()

    def _finish(self, failed: Iterable[PurgeItem], reason: str, retry_after: float | None) -> None:
        with self._lock:
            dropped = self._backlog.finish(failed, retry_after, self._clock.monotonic())
            self._write(lambda spool: spool.replace(self._backlog.items))
        if dropped:
            _logger.error("%d purges of %r were dropped: %s", dropped, self._cdn, reason)
        if self._backlog.is_waiting_for_service(self._clock.monotonic()):
            self._outage.failed(self._cdn, reason)
        else:
            self._outage.succeeded()

    def _write(self, write: Callable[[PurgeSpool], None]) -> None:
        if self._spool is None:
            return
        try:
            write(self._spool)
        except OSError as error:
            self._spool_outage.failed(self._cdn, error.strerror)
        else:
            self._spool_outage.succeeded()

    def _adopt(self) -> None:
        """Continue with what ended processes have left."""
        if self._spool is None or self._is_closed:
            return
        for path, items in self._spool.abandoned():
            allowed: list[PurgeItem] = []
            for item in items:
                with suppress(ConfigurationError):
                    self._cdn.check_items([item])
                    allowed.append(item)
            if not allowed or self.send_items(allowed):
                with suppress(OSError):
                    path.unlink()
