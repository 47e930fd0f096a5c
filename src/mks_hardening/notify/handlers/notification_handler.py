"""Base class of the notification handlers; a thin wrapper around the dispatcher."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, TypedDict
from weakref import finalize

from mks_hardening._core.checks import instance, level_number, offers, path_text, text_of
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.notify.alert_policy import AlertPolicy
from mks_hardening.notify.engine._alert import AlertReader
from mks_hardening.notify.engine._delivery import Destination
from mks_hardening.notify.engine._dispatcher import Dispatcher
from mks_hardening.notify.engine._reporting import OWN_LOGGER, is_sending
from mks_hardening.notify.engine._spool import Spool

if TYPE_CHECKING:
    from mks_hardening.notify.alert_stats import AlertStats
    from mks_hardening.notify.engine._alert import Render
    from mks_hardening.notify.engine._shared_store import SharedStore
    from mks_hardening.protocols import Clock, Redactor, Transport

__all__ = ["NotificationHandler"]


class HandlerOptions(TypedDict, total=False):
    """Options that every handler passes on to its base class."""

    level: int | str
    policy: AlertPolicy
    spool: str | os.PathLike[str] | None
    spool_name: str | None
    environment: str | None
    redactor: Redactor | None
    clock: Clock


class NotificationHandler(logging.Handler, Closing):
    """Base class of the logging handlers that send alerts.

    ``emit`` only inspects and queues a record; a worker thread sends. A handler is a context manager, and is
    drained at exit and on SIGTERM.

    Args:
        channel: kind of destination: ``email``, ``slack``, ``webhook`` or a custom one.
        render: converts alerts to the message for the transport.
        transport: delivers messages.
        level: minimum level of records that become alerts.
        policy: deduplication, retries, rate and queue size.
        spool: folder for undeliverable alerts, or ``None``.
        destination: distinguishes destinations of one kind in a shared store and in a spool; stored only as a hash.
        spool_name: name of the destination in the spool: alerts spooled under it are sent to the current address of
            the handler. Without a name, alerts are only sent to the address that they were meant for.
        environment: for example ``production``; ``None`` reads ``MKS_ENV``.
        redactor: redactor of secrets; the default one if ``None``.
        clock: wall and monotonic clock.

    Raises:
        ConfigurationError: the level is unknown, the spool is unusable, or another parameter is invalid.
    """

    def __init__(
        self,
        channel: str,
        *,
        render: Render,
        transport: Transport,
        destination: str,
        level: int | str = "ERROR",
        policy: AlertPolicy = AlertPolicy(),  # noqa: B008 - immutable
        spool: str | os.PathLike[str] | None = None,
        spool_name: str | None = None,
        environment: str | None = None,
        redactor: Redactor | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        number = level_number(level)
        clock = given_clock(clock)
        instance(policy, AlertPolicy, parameter="policy")
        offers(transport, "send", "close", parameter="transport", kind="a Transport")
        if redactor is not None:
            offers(redactor, "redact", "redact_text", parameter="redactor", kind="a SecretRedactor")
        if environment is not None:
            text_of(environment, parameter="environment")
        if spool is not None:
            path_text(spool, parameter="spool")
        if spool_name is not None:
            text_of(spool_name, parameter="spool_name", empty=False)
        # Alerts spooled for the address itself are sent too: they were written before the spool had a name.
        destinations = [destination] if spool_name is None else [f"\0{spool_name}", destination]
        self._dispatcher = Dispatcher(
            Destination(
                channel,
                policy,
                render,
                transport,
                spool=None
                if spool is None
                else Spool(spool, kind=channel, destinations=destinations, clock=clock),
                shared=_shared_store(policy, channel, destination, clock),
                clock=clock,
            ),
            AlertReader(
                redactor or default_redactor(),
                host=os.uname().nodename,
                environment=_environment(environment),
            ),
        )
        # A handler that is garbage-collected without being closed leaves no thread behind, and loses no alert.
        finalize(self, self._dispatcher.abandon).atexit = False
        # Last: from here on logging.shutdown knows the handler and flushes it.
        super().__init__(number)

    def handle(self, record: logging.LogRecord) -> bool:
        """Process a record, unless it is about a delivery: the notifier must not send alerts about itself.

        The lock of ``logging.Handler`` is not acquired: ``logging.shutdown`` holds it while it waits for the
        worker, and the worker may log.
        """
        if is_sending() or record.name == OWN_LOGGER:
            return False
        passed: object = self.filter(record)
        if not passed:
            return False
        # Since Python 3.12 a filter may replace the record.
        self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. Never blocks, never raises; may be called from a signal handler."""
        try:
            self._dispatcher.dispatch(record)
        except Exception:  # noqa: BLE001 - a log call must not fail because of its alert; counted
            self._dispatcher.count_error()

    def stats(self) -> AlertStats:
        """Return the counts of the records so far."""
        return self._dispatcher.stats()

    def flush(self, timeout: float = 5.0) -> bool:  # type: ignore[override]  # logging ignores the return value
        """Send queued alerts and open digests; return whether none is left after at most ``timeout`` seconds."""
        return self._dispatcher.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Deliver or spool queued alerts within ``timeout`` seconds. Idempotent."""
        self._dispatcher.close(timeout)
        super().close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ({logging.getLevelName(self.level)})>"


def _environment(given: str | None) -> str:
    if given is not None:
        return given
    from mks_hardening._core.environment.parsers import parse_text
    from mks_hardening._core.environment.variables import Environment

    return Environment().read("MKS_ENV", parse_text) or ""


def _shared_store(policy: AlertPolicy, channel: str, destination: str, clock: Clock) -> SharedStore | None:
    if policy.shared_store is None or not policy.dedup_window:
        return None
    from mks_hardening.notify.engine._shared_store import SharedStore

    return SharedStore(
        policy.shared_store, destination=f"{channel}:{destination}", window=policy.dedup_window, clock=clock
    )
