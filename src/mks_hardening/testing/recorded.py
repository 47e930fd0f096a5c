"""What was told during a test, to be asserted on: events, log lines, alerts."""

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
    """An observer that keeps every event (``mks_hardening.events.add_observer``).

    Attributes:
        events: all of them, in order.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: object, /) -> None:
        """Keep one event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Those of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        """Forget them."""
        self.events.clear()


class RecordedLines(logging.Handler):
    """A handler that keeps each record as the line that a formatter makes of it.

    Args:
        formatter: one that makes JSON.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(instance(formatter, logging.Formatter, parameter="formatter"))
        self._lines: list[str] = []
        self._levels: dict[logging.Logger, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self._lines.append(self.format(record))

    @property
    def text(self) -> str:
        """All lines as they would be written; to assert what is in none of them."""
        return "\n".join(self._lines)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines as data."""
        return [json.loads(line) for line in self._lines]

    @property
    def messages(self) -> list[str]:
        """The messages alone."""
        return [line["message"] for line in self.lines]

    def of(self, logger: str) -> list[dict[str, Any]]:
        """The lines of a logger and of those below it."""
        return [line for line in self.lines if f"{line['logger']}.".startswith(f"{logger}.")]

    def set_level(self, level: int | str, logger: str | None = None) -> None:
        """Let records from ``level`` on through, until ``close``."""
        target = logging.getLogger(logger)
        self._levels.setdefault(target, target.level)
        target.setLevel(level)

    def clear(self) -> None:
        """Forget the lines."""
        self._lines.clear()

    def close(self) -> None:
        """Put the levels back."""
        for target, level in self._levels.items():
            target.setLevel(level)
        self._levels.clear()
        super().close()


class RecordedAlerts:
    """What was sent to a transport that keeps everything; whoever asks waits until all is sent.

    Args:
        transport: the handler's.
        flush: sends what waits.
    """

    def __init__(self, transport: RecordingTransport, flush: Callable[[], object]) -> None:
        self._transport = transport
        self._flush = flush

    @property
    def subjects(self) -> list[str]:
        """The subject of each alert."""
        self._flush()
        return [message.subject for message in self._transport.messages]

    @property
    def texts(self) -> list[str]:
        """All of each alert as text."""
        self._flush()
        return [message.text for message in self._transport.messages]

    def clear(self) -> None:
        """Forget them."""
        self._flush()
        self._transport.messages.clear()
