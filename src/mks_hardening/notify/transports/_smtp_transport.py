"""Alerts over SMTP: who still waits for one is remembered from try to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mks_hardening.exceptions import DeliveryError

if TYPE_CHECKING:
    from mks_hardening._core.mail.smtp_session import SmtpSession
    from mks_hardening.protocols import OutgoingAlert

__all__ = ["SmtpTransport"]


class SmtpTransport:
    """Delivers e-mails to the same recipients.

    Args:
        session: the server.
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
            DeliveryError: not delivered, or not to all recipients.
        """
        # The id stays from try to try, and with it who has the mail already.
        if self._progress.message != message.id:
            self._progress = _Progress(message.id, self._recipients)
        self._progress.settle(self._session.deliver(self._sender, self._progress.left, message.body))

    def close(self) -> None:
        """Nothing stays open between deliveries."""


class _Progress:
    """Who still waits for a message; the others have it, and the next try must not give them a second copy."""

    def __init__(self, message: str, recipients: tuple[str, ...]) -> None:
        self.message = message
        self.left = recipients
        self._accepted = 0
        self._refused: list[int] = []

    def settle(self, refused: Mapping[str, int]) -> None:
        """Take the codes of those who did not get it in a try.

        Raises:
            DeliveryError: somebody did not get it yet, or will not.
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
