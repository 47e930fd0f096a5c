"""Never run: what type checkers see of the alert handlers and of transports that users write."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import assert_type

from mks_hardening import notify
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify import (
    AlertPolicy,
    AlertStats,
    EmailNotificationHandler,
    NotificationHandler,
    SlackNotificationHandler,
    WebhookNotificationHandler,
)
from mks_hardening.protocols import OutgoingAlert, Transport
from mks_hardening.testing import RecordingTransport

# --- handlers are logging's handlers

mail = EmailNotificationHandler("mail.example.com", from_addr="a@example.com", to_addrs=["b@example.com"])
slack = SlackNotificationHandler("https://hooks.example.com/x", timeout=timedelta(seconds=3))
hook: NotificationHandler = WebhookNotificationHandler("https://example.com/", secret=b"0123456789abcdef")
logging.getLogger().addHandler(mail)
of_the_facade: type[NotificationHandler] = notify.SlackNotificationHandler

assert_type(mail.stats(), AlertStats)
assert_type(mail.stats().delivered, int)
assert_type(slack.flush(2.5), bool)
with slack as entered:
    assert_type(entered, SlackNotificationHandler)

# --- the policy

assert_type(AlertPolicy(dedup_window=timedelta(minutes=5), rate=2), AlertPolicy)
assert_type(AlertPolicy().shared_store is None, bool)
AlertPolicy(300)  # type: ignore[call-arg]  # keyword-only
EmailNotificationHandler("localhost", 25)  # type: ignore[call-arg]  # keyword-only, and two are missing
SlackNotificationHandler("https://example.com/", lang="de")  # type: ignore[arg-type]  # no such language

# --- transports


class Printer:
    """The smallest transport."""

    def send(self, message: OutgoingAlert, /) -> None:
        if not message.subject:
            raise DeliveryError("empty", temporary=False)
        assert_type(message.body, bytes)

    def close(self) -> None:
        return None


class NoTransport:
    """Cannot be closed."""

    def send(self, message: OutgoingAlert, /) -> None:
        return None


transport: Transport = Printer()
recording: Transport = RecordingTransport()
slack_on_paper = SlackNotificationHandler("https://example.com/", transport=Printer())
wrong: Transport = NoTransport()  # type: ignore[assignment]  # no close()
