from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any

import pytest

from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.engine._alert import AlertMessage
from mks_hardening.notify.transports._http_transport import retry_after_seconds, signature
from mks_hardening.notify.transports._smtp_transport import SmtpTransport

NOW = 1_700_000_000.0


def test_the_signature_is_what_the_documentation_says() -> None:
    secret, body = b"0123456789abcdef", b'{"version":1}'
    expected = hmac.new(secret, b"v1:1700000000:" + body, hashlib.sha256).hexdigest()
    assert signature(secret, "1700000000", body) == f"v1={expected}"
    assert signature(secret, "1700000001", body) != signature(secret, "1700000000", body)


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 12 ", 12.0),
        ("300", 300.0),
        ("86400", 300.0),
        ("9" * 400, 300.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW + 86_400, usegmt=True), 300.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        ("Tue Nov 14 22:13:50 2023", 30.0),
        ("Wed, 15 Nov 2023 07:13:50 +0900", 30.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("²", None),
        ("Tue, 99 Nov 2023 22:13:50 GMT", None),
        ("Tue, 14 Foo 2023 22:13:50 GMT", None),
        ("x" * 100_000, None),
    ],
)
def test_retry_after(value: str | None, pause: float | None) -> None:
    assert retry_after_seconds(value, now=NOW) == pause


class Session:
    """An SMTP session that refuses recipients as told, and notes whom each attempt was for."""

    def __init__(self, *refusals: Mapping[str, int]) -> None:
        self.refusals = list(refusals)
        self.recipients: list[tuple[str, ...]] = []

    def deliver(self, _sender: str, recipients: Sequence[str], _body: bytes) -> Mapping[str, int]:
        self.recipients.append(tuple(recipients))
        return self.refusals.pop(0)


@pytest.mark.parametrize(
    ("refusals", "recipients", "outcomes"),
    [
        ([{}], ["abc"], [None]),
        ([{"b": 451}, {}], ["abc", "b"], [("some-recipients-deferred", True, True), None]),
        ([{"a": 450, "b": 451, "c": 452}], ["abc"], [("smtp-450", True, False)]),
        ([{"a": 550, "b": 450, "c": 450}], ["abc"], [("some-recipients-deferred", True, False)]),
        ([{"a": 550, "b": 551, "c": 552}], ["abc"], [("smtp-550", False, False)]),
        (
            [{"a": 550, "b": 450}, {"b": 554}],
            ["abc", "b"],
            [("some-recipients-deferred", True, True), ("smtp-550 for 2 of 3 recipients", False, True)],
        ),
    ],
)
def test_a_retry_is_for_the_recipients_that_are_left(
    refusals: list[Mapping[str, int]], recipients: list[str], outcomes: list[Any]
) -> None:
    session: Any = Session(*refusals, {})
    transport = SmtpTransport(session, sender="mks", recipients=["a", "b", "c"])
    results: list[Any] = []
    for _ in outcomes:
        try:
            transport.send(AlertMessage("one", "", "", {}, b""))
            results.append(None)
        except DeliveryError as error:
            results.append((error.reason, error.temporary, error.partial))
    assert results == outcomes
    transport.send(AlertMessage("another", "", "", {}, b""))
    assert ["".join(each) for each in session.recipients] == [*recipients, "abc"]
