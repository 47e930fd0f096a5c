"""Reports of the notifier about its own troubles: each once until the next delivery, and never to itself."""

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
# By thread and not by logger: urllib3 and ssl log about the delivery too, under names of their own.
_thread = threading.local()


def is_sending() -> bool:
    """Whether this thread is delivering an alert, so that what it logs must not become another one."""
    return getattr(_thread, "sending", False)


@contextmanager
def sending() -> Generator[None]:
    """Mark this thread as delivering."""
    _thread.sending = True
    try:
        yield
    finally:
        _thread.sending = False


class SelfReporter:
    """Reports to the other handlers of an application, and to its observers, that alerts do not get through.

    Args:
        channel: kind of destination.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._reported: set[str] = set()

    def refused(self, reason: str) -> None:
        """An alert was refused for good."""
        self._report(f"an alert was refused ({reason})")

    def partly_delivered(self, reason: str) -> None:
        """An alert was delivered, but not to everyone."""
        self._report(f"an alert did not reach everyone ({reason})")

    def fault(self, error: Exception) -> None:
        """Something in the notifier itself, or in a transport, went wrong; what it said may hold secrets."""
        self._report(f"a fault in the notifier itself ({type(error).__name__})")

    def lost(self, reason: str) -> None:
        """An alert was given up, and there is no folder for it."""
        self._report(f"alerts are lost ({reason}): give them a folder to wait in, spool= or MKS_ALERT_SPOOL")

    def spool_failed(self, error: OSError) -> None:
        """The spool took no alert."""
        self._report(f"the spool takes no more alerts ({type(error).__name__})")

    def strangers(self, number: int) -> None:
        """There are entries in the spool that are not for this destination."""
        self._report(
            f"alerts for another destination stay in the spool ({number}): build a handler with their address to"
            " send them, and give handlers a spool_name= so that the next change of address strands none"
        )

    def down(self, reason: str) -> None:
        """The destination does not take alerts for now."""
        self._change("closed", "open", reason)
        self._report(f"alerts cannot be delivered ({reason})")

    def up(self) -> None:
        """The destination takes alerts again."""
        self._change("open", "closed", "")
        self._report("alerts are delivered again")

    def delivered(self) -> None:
        """From here on trouble is news again."""
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
