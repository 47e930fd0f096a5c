from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify import EmailNotificationHandler
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
