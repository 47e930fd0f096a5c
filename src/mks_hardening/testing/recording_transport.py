"""A transport that keeps what it is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.checks import several

if TYPE_CHECKING:
    from mks_hardening.protocols import (
        OutgoingAlert,
    )

__all__ = ["RecordingTransport"]


class RecordingTransport:
    """A transport that keeps what it is given, and fails as often as it is told to.

    Args:
        failures: raised, one a message, before anything is kept; ``DeliveryError`` says whether trying again helps.

    Attributes:
        messages: what was delivered, with ``id``, ``subject``, ``text``, ``headers`` and ``body``.
        attempts: how often delivery was tried.
        closed: whether ``close`` was called.
    """

    def __init__(self, failures: Iterable[Exception] = ()) -> None:
        self.failures: list[Exception] = list(several(failures, Exception, parameter="failures"))
        self.messages: list[OutgoingAlert] = []
        self.attempts: int = 0
        self.closed: bool = False

    def send(self, message: OutgoingAlert, /) -> None:
        """Keep the message, or raise the next failure."""
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append(message)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True
