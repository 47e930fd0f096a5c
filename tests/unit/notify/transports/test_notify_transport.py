from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import smtplib

import pytest

from mks_hardening._core.mail import smtp_session
from mks_hardening.exceptions import DeliveryError, MksHardeningError
from mks_hardening.notify.transports._http_transport import signature
from mks_hardening.protocols import Transport
from mks_hardening.testing import RecordingTransport


def test_the_signature_is_what_the_documentation_says() -> None:
    secret, body = b"0123456789abcdef", b'{"version":1}'
    expected = hmac.new(secret, b"v1:1700000000:" + body, hashlib.sha256).hexdigest()
    assert signature(secret, "1700000000", body) == f"v1={expected}"
    assert signature(secret, "1700000001", body) != signature(secret, "1700000000", body)


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


def test_delivery_errors_carry_their_facts_and_travel() -> None:
    error = DeliveryError("http-429", temporary=True, retry_after=7.0)
    assert isinstance(error, MksHardeningError)
    assert str(error) == "not delivered (http-429)"
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert (other.reason, other.temporary, other.retry_after) == ("http-429", True, 7.0)


def test_the_recording_transport_is_a_transport() -> None:
    transport: Transport = RecordingTransport([DeliveryError("x", temporary=True)])
    assert transport.close() is None  # type: ignore[func-returns-value]  # part of the protocol
