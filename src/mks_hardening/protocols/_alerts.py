"""Protocols for outgoing alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["OutgoingAlert", "Transport"]


class OutgoingAlert(Protocol):
    """A rendered alert, ready to be sent."""

    @property
    def id(self) -> str:
        """Id that is the same for every attempt, so that duplicates can be detected."""
        ...

    @property
    def subject(self) -> str:
        """One-line summary."""
        ...

    @property
    def text(self) -> str:
        """The whole alert as plain text."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields of the email or of the HTTP request."""
        ...

    @property
    def body(self) -> bytes:
        """Payload: a complete email, or a JSON document."""
        ...


class Transport(Protocol):
    """Delivers one rendered alert within seconds; raises if it cannot."""

    def send(self, message: OutgoingAlert, /) -> None:
        """Deliver the message, or raise ``DeliveryError``, which indicates whether a retry makes sense."""
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...
