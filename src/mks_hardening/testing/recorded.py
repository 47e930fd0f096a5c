"""Recorders for assertions on events, log lines and alerts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mks_hardening._core.checks import instance

if TYPE_CHECKING:
    from mks_hardening.testing.recording_transport import RecordingTransport

__all__ = ["RecordedAlerts", "RecordedEvents", "RecordedLines"]

E = TypeVar("E")


class RecordedEvents:
    """Observer that stores every event (``mks_hardening.events.add_observer``).

    Attributes:
        events: all events, in order.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: object, /) -> None:
        """Store one event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        """Delete the stored events."""
        self.events.clear()


class RecordedLines(logging.Handler):
    """Log handler that stores each record as formatted.

    Args:
        formatter: formatter that produces JSON.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(instance(formatter, logging.Formatter, parameter="formatter"))
        self._lines: list[str] = []
        self._levels: dict[logging.Logger, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Store one record."""
        self._lines.append(self.format(record))

    @property
    def text(self) -> str:
        """All lines as they would be written; for assertions that something is not logged."""
        return "\n".join(self._lines)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines as dictionaries."""
        return [json.loads(line) for line in self._lines]

    @property
    def messages(self) -> list[str]:
        """Messages of all lines."""
        return [line["message"] for line in self.lines]

    def of(self, logger: str) -> list[dict[str, Any]]:
        """Return the lines of a logger and its children."""
        return [line for line in self.lines if f"{line['logger']}.".startswith(f"{logger}.")]

    def set_level(self, level: int | str, logger: str | None = None) -> None:
        """Set the level of a logger (the root logger by default) until ``close``."""
        target = logging.getLogger(logger)
        self._levels.setdefault(target, target.level)
        target.setLevel(level)

    def clear(self) -> None:
        """Delete the stored lines."""
        self._lines.clear()

    def close(self) -> None:
        """Restore the logger levels."""
        for target, level in self._levels.items():
            target.setLevel(level)
        self._levels.clear()
        super().close()


class RecordedAlerts:
    """Alerts sent to a recording transport; every access first waits until all pending alerts are sent.

    Args:
        transport: transport of the handler.
        flush: sends the pending alerts.
    """

    def __init__(self, transport: RecordingTransport, flush: Callable[[], object]) -> None:
        self._transport = transport
        self._flush = flush

    @property
    def subjects(self) -> list[str]:
        """Subjects of all alerts."""
        self._flush()
        return [message.subject for message in self._transport.messages]

    @property
    def texts(self) -> list[str]:
        """Texts of all alerts."""
        self._flush()
        return [message.text for message in self._transport.messages]

    def clear(self) -> None:
        """Delete the stored alerts."""
        self._flush()
        self._transport.messages.clear()
