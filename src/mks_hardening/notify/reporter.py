"""How the notifier tells of its own troubles: counted, told once, and never to itself."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening.events import BreakerChanged

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["OWN_LOGGER", "Reporter", "is_sending", "sending"]

OWN_LOGGER: Final = "mks_hardening.notify"
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


class Reporter:
    """Tells the other handlers of an application, and its observers, that alerts do not get through.

    Args:
        channel: kind of destination.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._told: set[str] = set()

    def refused(self, reason: str) -> None:
        """An alert was refused for good."""
        self._tell(f"an alert was refused ({reason})")

    def fault(self, error: Exception) -> None:
        """Something in the notifier itself, or in a transport, went wrong; what it said may hold secrets."""
        self._tell(f"a fault in the notifier itself ({type(error).__name__})")

    def spool_failed(self, error: OSError) -> None:
        """The spool took no alert."""
        self._tell(f"the spool takes no more alerts ({type(error).__name__})")

    def down(self, reason: str) -> None:
        """The destination does not take alerts for now."""
        self._change("closed", "open", reason)
        self._tell(f"alerts cannot be delivered ({reason})")

    def up(self) -> None:
        """The destination takes alerts again."""
        self._change("open", "closed", "")
        self._tell("alerts are delivered again")

    def delivered(self) -> None:
        """From here on trouble is news again."""
        self._told.clear()

    def _change(self, before: str, after: str, reason: str) -> None:
        if hooks.observers:
            hooks.emit(BreakerChanged(self._channel, before, after, reason))

    def _tell(self, what: str) -> None:
        if what in self._told:
            return
        self._told.add(what)
        with suppress(Exception):  # a handler of the application that raises must not stop the worker
            logging.getLogger(OWN_LOGGER).error("%s: %s", self._channel, what)
