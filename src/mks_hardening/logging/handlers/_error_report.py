"""Errors of the log handlers: counted, reported once on stderr, and never raised in the application."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mks_hardening._core import hooks
from mks_hardening.events import LogsDropped

__all__ = ["HandlerErrorReport", "to_stderr"]


def to_stderr(text: str) -> None:
    """Write one line to stderr; errors are ignored, for example if stderr is closed."""
    try:
        sys.stderr.write(f"mks_hardening.logging: {text}\n")
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 - there is nowhere left to report to
        pass


class HandlerErrorReport:
    """Report an error once, count the records lost, and report once when it is resolved.

    Args:
        name: name of the handler, for the messages and events.
        say: writes the messages.
    """

    __slots__ = ("_broken", "_name", "_say", "lost")

    def __init__(self, name: str, *, say: Callable[[str], None] = to_stderr) -> None:
        self._name = name
        self._say = say
        self._broken = ""
        self.lost: int = 0

    def failed(self, reason: str, *, lost: int = 1) -> None:
        """Record an error; a new reason is reported, a known one only counted."""
        self.lost += lost
        if hooks.observers and lost:
            hooks.emit(LogsDropped(self._name, lost, reason))
        if self._broken != reason:
            self._broken = reason
            self._say(f"{self._name}: {reason}; records are lost until this is fixed")

    def works(self) -> None:
        """Record a success; reported only after an error."""
        if self._broken:
            self._broken = ""
            self._say(f"{self._name}: is working again; {self.lost} records were lost so far")
