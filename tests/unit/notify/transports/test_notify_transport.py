from __future__ import annotations

import hashlib
import hmac
from email.utils import formatdate

import pytest

from mks_hardening.notify.transports._http_transport import retry_after_seconds, signature

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
