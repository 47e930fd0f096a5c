"""Reports about problems of the notifier itself: each once until the next delivery, and never as an alert."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening.events import BreakerChanged

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["OWN_LOGGER", "SelfReporter", "is_sending", "sending"]

OWN_LOGGER: Final = "mks_hardening.notify"
# By thread instead of logger: urllib3 and ssl also log about the delivery, with their own loggers.
_thread = threading.local()


def is_sending() -> bool:
    """Return whether this thread is delivering an alert, so that its log records must not cause another alert."""
    return getattr(_thread, "sending", False)


@contextmanager
def sending() -> Generator[None]:
    """Mark this thread as delivering within the block."""
    _thread.sending = True
    try:
        yield
    finally:
        _thread.sending = False


class SelfReporter:
    """Report delivery problems to the application's other handlers and its observers.

    Args:
        channel: kind of destination.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._reported: set[str] = set()

    def refused(self, reason: str) -> None:
        """Report an alert that was permanently refused."""
        self._report(f"an alert was refused ({reason})")

    def partly_delivered(self, reason: str) -> None:
        """Report an alert that some recipients did not receive."""
        self._report(f"an alert did not reach everyone ({reason})")

    def fault(self, error: Exception) -> None:
        """Report an error of the notifier itself or a transport, without its message, which may contain secrets."""
        self._report(f"a fault in the notifier itself ({type(error).__name__})")

    def lost(self, reason: str) -> None:
        """Report an alert that was given up without a spool."""
        self._report(f"alerts are lost ({reason}): give them a folder to wait in, spool= or MKS_ALERT_SPOOL")

    def spool_failed(self, error: OSError) -> None:
        """Report that the spool did not accept an alert."""
        self._report(f"the spool takes no more alerts ({type(error).__name__})")

    def strangers(self, number: int) -> None:
        """Report spooled alerts for another destination."""
        self._report(
            f"alerts for another destination stay in the spool ({number}): build a handler with their address to"
            " send them, and give handlers a spool_name= so that the next change of address strands none"
        )

    def down(self, reason: str) -> None:
        """Report that the destination does not accept alerts at the moment."""
        self._change("closed", "open", reason)
        self._report(f"alerts cannot be delivered ({reason})")

    def up(self) -> None:
        """Report that the destination accepts alerts again."""
        self._change("open", "closed", "")
        self._report("alerts are delivered again")

    def delivered(self) -> None:
        """Record a delivery, after which problems are reported again."""
        self._reported.clear()

    def _change(self, before: str, after: str, reason: str) -> None:
        if hooks.observers:
            hooks.emit(BreakerChanged(self._channel, before, after, reason))

    def _report(self, what: str) -> None:
        if what in self._reported:
            return
        self._reported.add(what)
        with suppress(Exception):  # a handler of the application that raises must not stop the worker
            logging.getLogger(OWN_LOGGER).error("%s: %s", self._channel, what)
