from __future__ import annotations

import logging
import ssl
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from mks_hardening._core.mail import smtp_server
from mks_hardening.exceptions import ConfigurationError, DeliveryError
from mks_hardening.notify import AlertPolicy, EmailNotificationHandler
from mks_hardening.testing import RecordingTransport
from testbed.ids import plain_repr


def build(**options: Any) -> EmailNotificationHandler:
    known: dict[str, Any] = {
        "smtp_host": "localhost",
        "security": "plain",
        "from_addr": "mks@example.com",
        "to_addrs": ["ops@example.com"],
        **options,
    }
    return EmailNotificationHandler(known.pop("smtp_host"), **known)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"to_addrs": []}, "to_addrs"),
        ({"to_addrs": ()}, "to_addrs"),
        ({"to_addrs": ""}, "to_addrs"),
        ({"to_addrs": [""]}, "to_addrs"),
        ({"to_addrs": ["  "]}, "to_addrs"),
        ({"to_addrs": None}, "to_addrs"),
        ({"to_addrs": [None]}, "to_addrs"),
        ({"to_addrs": b"ops@example.com"}, "to_addrs"),
        ({"to_addrs": 7}, "to_addrs"),
        ({"to_addrs": ["ops"]}, "to_addrs"),
        ({"to_addrs": ["@example.com"]}, "to_addrs"),
        ({"to_addrs": ["ops@"]}, "to_addrs"),
        ({"to_addrs": ["ops@example.com\r\nBcc: evil@example.org"]}, "to_addrs"),
        ({"to_addrs": ["運用@example.com"]}, "to_addrs"),
        ({"to_addrs": ["ops@例え.jp"]}, "to_addrs"),
        ({"to_addrs": ["a b@example.com"]}, "to_addrs"),
        ({"from_addr": ""}, "from_addr"),
        ({"from_addr": "mks"}, "from_addr"),
        ({"from_addr": "a@example.com, b@example.com"}, "from_addr"),
        ({"from_addr": "mks@example.com\n"}, "from_addr"),
        ({"username": "mks"}, "password"),
        ({"password": "hunter22"}, "username"),
        ({"username": "", "password": "hunter22"}, "username"),
        ({"security": "none"}, "security"),
        ({"security": None}, "security"),
        ({"smtp_host": "mail.example.com"}, "security"),
        ({"smtp_host": "10.0.0.5"}, "security"),
        ({"smtp_host": "localhost.example.com"}, "security"),
        ({"smtp_host": ""}, "smtp_host"),
        ({"smtp_host": "mail example"}, "smtp_host"),
        ({"smtp_port": 0}, "smtp_port"),
        ({"smtp_port": 65536}, "smtp_port"),
        ({"smtp_port": "587"}, "smtp_port"),
        ({"smtp_port": True}, "smtp_port"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"subject_prefix": "x\r\nBcc: a@b.c"}, "subject_prefix"),
        ({"subject_prefix": "x" * 61}, "subject_prefix"),
        ({"subject_prefix": None}, "subject_prefix"),
        ({"security": "starttls", "ca_file": "/nowhere/ca.pem"}, "ca_file"),
        ({"security": "tls", "ca_file": "x", "ssl_context": ssl.create_default_context()}, "ca_file"),
        ({"lang": "fr"}, "lang"),
    ],
    ids=plain_repr,
)
def test_a_wrong_set_up_is_refused_by_name(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(**options)
    assert caught.value.parameter == parameter
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"smtp_host": "127.0.0.1"},
        {"smtp_host": "127.8.8.8"},
        {"smtp_host": "::1"},
        {"smtp_host": "mail.example.com", "allow_plaintext": True},
        {"smtp_host": "mail.example.com", "security": "starttls"},
        {"smtp_host": "mail.example.com", "security": "tls", "smtp_port": 465},
        {"to_addrs": "Ops <ops@example.com>, 夜勤 <night@example.com>"},
        {"to_addrs": ("a@example.com", "", "b@example.com")},
        {"to_addrs": '"Smith, John" <js@example.com>'},
        {"username": "mks", "password": "hunter22"},
        {"username": "", "password": ""},
        {"username": None, "password": None},
        {"timeout": 2.5},
        {"subject_prefix": ""},
        {"subject_prefix": "[建設ナレッジ]"},
    ],
    ids=plain_repr,
)
def test_a_right_set_up_is_taken_and_shows_no_secret(options: dict[str, Any]) -> None:
    with build(**options) as handler:
        assert "hunter22" not in repr(handler)
        assert "hunter22" not in repr(vars(handler))
        assert "hunter22" not in repr(handler._dispatcher.destination.transport)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")
    with pytest.raises(ConfigurationError, match="ca_file"):
        build(security="tls", ca_file=str(file))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_the_default_context_verifies(security: str) -> None:
    with build(security=security) as handler:
        context = handler._dispatcher.destination.transport._session._context  # type: ignore[attr-defined]  # the SMTP transport
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_transport_of_ones_own_takes_the_place_of_smtp() -> None:
    transport = RecordingTransport()
    with build(smtp_host="mail.example.com", security="starttls", transport=transport):
        pass
    assert transport.closed


class Session:
    """Stands in for the SMTP session: records how it was set up and what it delivered."""

    def __init__(self) -> None:
        self.set_up: dict[str, Any] = {}
        self.delivered: list[tuple[str, tuple[str, ...], bytes]] = []

    def __call__(self, smtp_host: str, **options: Any) -> Session:
        self.set_up = {"smtp_host": smtp_host, **options}
        return self

    def deliver(self, sender: str, recipients: tuple[str, ...], body: bytes) -> dict[str, int]:
        self.delivered.append((sender, recipients, body))
        return {}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    made = Session()
    monkeypatch.setattr(smtp_server, "smtp_session", made)
    return made


ADDRESSES: dict[str, Any] = {"from_addr": "Ops <mks@example.com>", "to_addrs": "a@example.com, b@example.com"}
DEFAULTS: dict[str, Any] = {
    "smtp_host": "mail.example.com",
    "smtp_port": 587,
    "username": None,
    "password": None,
    "security": "starttls",
    "ssl_context": None,
    "ca_file": None,
    "timeout": 10,
    "allow_plaintext": False,
}
OTHERS: dict[str, Any] = {
    "smtp_port": 465,
    "username": "mks",
    "password": "hunter22",
    "security": "tls",
    "ssl_context": ssl.create_default_context(),
    "ca_file": "/etc/ca.pem",
    "timeout": 2.5,
    "allow_plaintext": True,
}


@pytest.mark.parametrize("options", [{}, OTHERS], ids=["defaults", "all"])
def test_the_session_is_set_up_as_the_handler_was(session: Session, options: dict[str, Any]) -> None:
    EmailNotificationHandler("mail.example.com", **ADDRESSES, **options).close()
    assert session.set_up == DEFAULTS | options


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({}, "[MKS][test] ERROR: order failed"),
        ({"subject_prefix": "Ops:"}, "Ops:[test] ERROR: order failed"),
        ({"subject_prefix": "x" * 60}, f"{'x' * 60}[test] ERROR: order failed"),
    ],
)
def test_a_mail_goes_to_every_recipient_from_the_sender(
    session: Session, options: dict[str, Any], subject: str
) -> None:
    log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
    with EmailNotificationHandler("mail.example.com", environment="test", **ADDRESSES, **options) as handler:
        log.addHandler(handler)
        log.error("order failed")
        handler.flush(5)
    ((sender, recipients, body),) = session.delivered
    assert (sender, recipients) == ("mks@example.com", ("a@example.com", "b@example.com"))
    mail = message_from_bytes(body, policy=policy.default)
    assert mail["Subject"] == subject
    assert (mail["From"], mail["To"]) == ("Ops <mks@example.com>", "a@example.com, b@example.com")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from_addr": "a@example.com, b@example.com"}, "from_addr must be one address"),
        (
            {"subject_prefix": "x" * 61},
            "subject_prefix must be a printable line of at most 60 characters",
        ),
        ({"subject_prefix": "a\nb"}, "subject_prefix must be a printable line of at most 60 characters"),
    ],
)
def test_a_refusal_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(**options)
    assert str(caught.value) == message


def test_recipients_in_another_order_are_the_same_destination(tmp_path: Path, session: Session) -> None:
    """What one handler has put aside, the other sends; one with other recipients does not."""
    transport = RecordingTransport()
    transport.failures = [DeliveryError("smtp-550", temporary=False)]
    options: dict[str, Any] = {
        "from_addr": "mks@example.com",
        "spool": tmp_path,
        "policy": AlertPolicy(retries=0),
    }
    log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
    to = ["a@example.com", "b@example.com"]
    with EmailNotificationHandler("one", to_addrs=to, transport=transport, **options) as handler:
        log.addHandler(handler)
        log.error("order failed")
        handler.flush(5)
        assert handler.stats().spooled == 1
    with EmailNotificationHandler("two", to_addrs=[*to, "c@example.com"], **options) as handler:
        handler.flush(5)
    assert session.delivered == []
    with EmailNotificationHandler("three", to_addrs=to[::-1], **options) as handler:
        handler.flush(5)
    assert [recipients for _, recipients, _ in session.delivered] == [("b@example.com", "a@example.com")]
