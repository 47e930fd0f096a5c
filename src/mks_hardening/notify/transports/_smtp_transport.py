"""SMTP transport: tracks the recipients that have not received a message yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        self._progress = _Progress("", self._recipients)

    def send(self, message: OutgoingAlert, /) -> None:
        """Deliver the message.

        Raises:
            DeliveryError: the message was not delivered, or not to all recipients.
        """
        # The id is the same for every attempt, and identifies the recipients that already have the mail.
        if self._progress.message != message.id:
            self._progress = _Progress(message.id, self._recipients)
        self._progress.settle(self._session.deliver(self._sender, self._progress.left, message.body))

    def close(self) -> None:
        """Do nothing: no connection stays open between deliveries."""


class _Progress:
    """Recipients that have not received a message yet; a retry must not send duplicates to the others."""

    def __init__(self, message: str, recipients: tuple[str, ...]) -> None:
        self.message = message
        self.left = recipients
        self._accepted = 0
        self._refused: list[int] = []

    def settle(self, refused: Mapping[str, int]) -> None:
        """Record the reply codes of the recipients that did not receive the message in an attempt.

        Raises:
            DeliveryError: some recipients have not received it yet, or never will.
        """
        self._accepted += len(self.left) - len(refused)
        self.left = tuple(address for address, code in refused.items() if code < 500)
        self._refused += [code for code in refused.values() if code >= 500]
        some = self._accepted or self._refused
        if self.left:
            raise DeliveryError(
                "some-recipients-deferred" if some else f"smtp-{min(refused.values())}",
                temporary=True,
                partial=bool(self._accepted),
            )
        if self._refused:
            reason = f"smtp-{min(self._refused)}"
            if self._accepted:
                reason += f" for {len(self._refused)} of {len(self._refused) + self._accepted} recipients"
            raise DeliveryError(reason, temporary=False, partial=bool(self._accepted))
