"""Outgoing message of one or more alerts, and its rendered form for a transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mks_hardening.notify.engine._alert import Alert

if TYPE_CHECKING:
    from mks_hardening.notify.engine._spool import LockedEntry

__all__ = ["AlertMessage", "OutgoingMessage", "Render"]


class OutgoingMessage(NamedTuple):
    """Alerts that are sent as one message, and the number of failed attempts.

    Attributes:
        id: set before the first attempt, so that duplicates can be detected.
        alerts: at least one alert.
        tries: number of failed attempts.
        entries: locked entries of the spool, if the alerts come from it, in the order of the alerts.
    """

    id: str
    alerts: tuple[Alert, ...]
    tries: int = 0
    entries: tuple[LockedEntry, ...] = ()

    @property
    def weight(self) -> int:
        """Number of log records in the counts that this message stands for; spooled alerts were counted before."""
        return 0 if self.entries else sum(alert.weight for alert in self.alerts)


class AlertMessage(NamedTuple):
    """Rendered message for a transport.

    Attributes:
        id: the same for every attempt.
        subject: one line.
        text: complete message as plain text.
        headers: header fields of the e-mail or the HTTP request.
        body: bytes to send: a complete e-mail or a JSON document.
    """

    id: str
    subject: str
    text: str
    headers: Mapping[str, str]
    body: bytes


Render: TypeAlias = Callable[[OutgoingMessage], AlertMessage]
