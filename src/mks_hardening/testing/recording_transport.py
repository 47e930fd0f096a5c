"""A transport that stores messages instead of sending them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instances

if TYPE_CHECKING:
    from mks_hardening.protocols import (
        OutgoingAlert,
    )

__all__ = ["RecordingTransport"]


class RecordingTransport:
    """Transport that stores messages instead of sending them, and fails on demand.

    Args:
        failures: exceptions to raise, one per message, before messages are stored; ``DeliveryError`` indicates
            whether a retry makes sense.

    Attributes:
        messages: delivered messages, with ``id``, ``subject``, ``text``, ``headers`` and ``body``.
        attempts: number of delivery attempts.
        closed: whether ``close`` was called.
    """

    def __init__(self, failures: Iterable[Exception] = ()) -> None:
        self.failures: list[Exception] = list(instances(failures, Exception, parameter="failures"))
        self.messages: list[OutgoingAlert] = []
        self.attempts: int = 0
        self.closed: bool = False

    def send(self, message: OutgoingAlert, /) -> None:
        """Store the message, or raise the next failure."""
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append(message)

    def close(self) -> None:
        """Record that the transport was closed."""
        self.closed = True
