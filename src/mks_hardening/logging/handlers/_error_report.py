"""Faults of the log itself: counted, told once on stderr, and never raised into the application."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mks_hardening._core import hooks
from mks_hardening.events import LogsDropped

__all__ = ["HandlerErrorReport", "to_stderr"]


def to_stderr(text: str) -> None:
    """One line on stderr; a stderr that is closed or cannot say it is ignored."""
    try:
        sys.stderr.write(f"mks_hardening.logging: {text}\n")
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 - there is nowhere left to report to
        pass


class HandlerErrorReport:
    """Says once that something is broken, counts what is lost meanwhile, and says once that it works again.

    Args:
        name: what is broken, for the sentences and the events.
        say: takes the sentences.
    """

    __slots__ = ("_broken", "_name", "_say", "lost")

    def __init__(self, name: str, *, say: Callable[[str], None] = to_stderr) -> None:
        self._name = name
        self._say = say
        self._broken = ""
        self.lost: int = 0

    def failed(self, reason: str, *, lost: int = 1) -> None:
        """Note a fault; a new reason is told, a known one only counted."""
        self.lost += lost
        if hooks.observers and lost:
            hooks.emit(LogsDropped(self._name, lost, reason))
        if self._broken != reason:
            self._broken = reason
            self._say(f"{self._name}: {reason}; records are lost until this is mended")

    def works(self) -> None:
        """Note that it works; told only after a fault."""
        if self._broken:
            self._broken = ""
            self._say(f"{self._name}: works again; {self.lost} records were lost so far")
