"""What goes out as one message, and the form in which a layout gives it to a transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mks_hardening.notify.engine._alert import Alert

if TYPE_CHECKING:
    from mks_hardening.notify.engine._spool import SpoolClaim

__all__ = ["AlertMessage", "OutgoingMessage", "Render"]


class OutgoingMessage(NamedTuple):
    """Alerts that go out as one message, and how often that was tried.

    Attributes:
        id: fixed before the first try, so that a second copy can be recognised.
        alerts: at least one.
        tries: failed tries so far.
        claims: what the spool wants back when the alerts came from there.
    """

    id: str
    alerts: tuple[Alert, ...]
    tries: int = 0
    claims: tuple[SpoolClaim, ...] = ()

    @property
    def weight(self) -> int:
        """Records in the sums that this parcel stands for; those from the spool were counted before."""
        return 0 if self.claims else sum(alert.weight for alert in self.alerts)


class AlertMessage(NamedTuple):
    """What a transport is given.

    Attributes:
        id: the same for every try.
        subject: one line.
        text: all of it as plain text.
        headers: header fields of the e-mail or of the HTTP request.
        body: the bytes that are sent: a whole e-mail, or a JSON document.
    """

    id: str
    subject: str
    text: str
    headers: Mapping[str, str]
    body: bytes


Render: TypeAlias = Callable[[OutgoingMessage], AlertMessage]
