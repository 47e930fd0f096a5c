"""SMTP transport: tracks the recipients that have not received a message yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mks_hardening.exceptions import DeliveryError

if TYPE_CHECKING:
    from mks_hardening._core.mail.smtp_session import SmtpSession
    from mks_hardening.protocols import OutgoingAlert

__all__ = ["SmtpTransport"]


class SmtpTransport:
    """Deliver e-mails to a fixed list of recipients.

    Args:
        session: SMTP session of the server.
        sender: envelope sender.
        recipients: envelope recipients.
    """

    def __init__(self, session: SmtpSession, *, sender: str, recipients: Sequence[str]) -> None:
        self._session = session
        self._sender = sender
        self._recipients = tuple(recipients)
        # Progress of one message: a retry must not send duplicates to the recipients that already have it.
        self._message_id = ""
        self._remaining = self._recipients
        self._accepted = 0
        self._refused: list[int] = []

    def send(self, message: OutgoingAlert, /) -> None:
        """Deliver the message.

        Raises:
            DeliveryError: some recipients have not received it yet, or never will.
        """
        # The id is the same for every attempt.
        if self._message_id != message.id:
            self._message_id, self._remaining = message.id, self._recipients
            self._accepted, self._refused = 0, []
        refused = self._session.deliver(self._sender, self._remaining, message.body)
        self._accepted += len(self._remaining) - len(refused)
        self._remaining = tuple(address for address, code in refused.items() if code < 500)
        self._refused += [code for code in refused.values() if code >= 500]
        partial = bool(self._accepted)
        if self._remaining:
            some = partial or self._refused
            reason = "some-recipients-deferred" if some else f"smtp-{min(refused.values())}"
            raise DeliveryError(reason, temporary=True, partial=partial)
        if self._refused:
            reason = f"smtp-{min(self._refused)}"
            if partial:
                reason += f" for {len(self._refused)} of {len(self._refused) + self._accepted} recipients"
            raise DeliveryError(reason, temporary=False, partial=partial)

    def close(self) -> None:
        """Do nothing: no connection stays open between deliveries."""
