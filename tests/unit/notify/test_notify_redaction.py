"""What the log hides no alert may tell: the corpus of secrets is run through every sender and the spool."""

from __future__ import annotations

import logging
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

import logging_corpus
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify import (
    AlertPolicy,
    EmailNotificationHandler,
    NotificationHandler,
    SlackNotificationHandler,
    WebhookNotificationHandler,
)
from mks_hardening.protocols import OutgoingAlert
from mks_hardening.testing import FrozenClock, RecordingTransport

CASES = [case for case in logging_corpus.load() if case.get("absent")]
URL = "http://localhost/hook"
MAIL: dict[str, Any] = {"from_addr": "a@example.com", "to_addrs": ["b@example.com"], "security": "plain"}
SENDERS: dict[str, Callable[..., NotificationHandler]] = {
    "email": lambda **options: EmailNotificationHandler("localhost", **MAIL, **options),
    "slack": lambda **options: SlackNotificationHandler(URL, **options),
    "webhook": lambda **options: WebhookNotificationHandler(URL, **options),
}


def built(kind: str, clock: FrozenClock, **options: Any) -> NotificationHandler:
    return SENDERS[kind](
        clock=clock, level=0, policy=AlertPolicy(dedup_window=0, rate=1e6, retries=0), **options
    )


def result(message: OutgoingAlert) -> str:
    """All that leaves the process, readable."""
    parts = [message.text, message.subject, message.body.decode("utf-8", "replace")]
    mail = message_from_bytes(message.body, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    parts += [part.get_content() for part in mail.walk() if part.get_content_maintype() == "text"]
    return "\n".join(parts)


@pytest.mark.parametrize("kind", SENDERS)
def test_no_sender_tells_a_secret(kind: str) -> None:
    transport = RecordingTransport()
    clock = FrozenClock()
    wrong: dict[str, list[str]] = {}
    with built(kind, clock, transport=transport) as handler:
        for case in CASES:
            handler.handle(logging_corpus.record_of({**case, "level": logging.ERROR}))
            clock.advance(2)  # the rate of messages
            assert handler.flush(5)
            text = "\n".join(map(result, transport.messages))
            assert text
            wrong[case["id"]] = [secret for secret in case["absent"] if secret in text]
            transport.messages.clear()
    assert {identity: found for identity, found in wrong.items() if found} == {}


def test_the_spool_holds_no_secret(tmp_path: Path) -> None:
    transport = RecordingTransport([DeliveryError("http-503", temporary=True)] * 10_000)
    secrets = set[str]()
    with built("webhook", FrozenClock(), transport=transport, spool=tmp_path) as handler:
        for case in CASES:
            handler.handle(logging_corpus.record_of({**case, "level": logging.ERROR}))
            secrets.update(case["absent"])
    text = "\n".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert text.count("fingerprint") >= len(CASES)
    assert [secret for secret in sorted(secrets) if len(secret) > 4 and secret in text] == []
