from __future__ import annotations

import smtplib

import pytest

from mks_hardening._core.mail import smtp_session


@pytest.mark.parametrize(
    ("error", "reason", "temporary"),
    [
        (smtplib.SMTPResponseException(421, b"x"), "smtp-421", True),
        (smtplib.SMTPConnectError(454, b"x"), "smtp-454", True),
        (smtplib.SMTPSenderRefused(550, b"x", "a"), "smtp-550", False),
        (smtplib.SMTPDataError(554, b"x"), "smtp-554", False),
        (smtplib.SMTPDataError(451, b"x"), "smtp-451", True),
        (smtplib.SMTPAuthenticationError(535, b"x"), "smtp-535", False),
        (smtplib.SMTPHeloError(-1, b"x"), "protocol", True),
        (smtplib.SMTPServerDisconnected("x"), "disconnected", True),
        (smtplib.SMTPNotSupportedError("x"), "unsupported", False),
    ],
)
def test_what_an_smtp_error_means(error: smtplib.SMTPException, reason: str, temporary: bool) -> None:
    meaning = smtp_session._refusal(error)
    assert (meaning.reason, meaning.temporary) == (reason, temporary)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("web1.example.com", "web1.example.com"),
        ("web1", "[127.0.0.1]"),
        ("", "[127.0.0.1]"),
        ("web 1.example.com", "[127.0.0.1]"),
        ("ホスト.example.com", "[127.0.0.1]"),
        ("a.b\r\nRSET", "[127.0.0.1]"),
    ],
)
def test_what_a_machine_calls_itself(node: str, said: str) -> None:
    assert smtp_session._full_name(node) == said
