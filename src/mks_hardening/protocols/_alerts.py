"""Alerts on their way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["OutgoingAlert", "Transport"]


class OutgoingAlert(Protocol):
    """An alert in the form in which it leaves the process."""

    @property
    def id(self) -> str:
        """The same for every try, so that copies can be recognised."""
        ...

    @property
    def subject(self) -> str:
        """One line that tells what it is about."""
        ...

    @property
    def text(self) -> str:
        """All of it as plain text."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields of the e-mail or of the HTTP request."""
        ...

    @property
    def body(self) -> bytes:
        """What is sent: a whole e-mail, or a JSON document."""
        ...


class Transport(Protocol):
    """Delivers one rendered alert, within seconds; raises when it could not."""

    def send(self, message: OutgoingAlert, /) -> None:
        """Deliver the message, or raise ``DeliveryError``, which says whether trying again makes sense."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...
