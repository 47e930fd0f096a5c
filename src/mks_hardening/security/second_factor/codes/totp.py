"""Time-based one-time passwords (RFC 6238): strict parsing, constant-time comparison, each code valid once.

Verification uses ``hmac.digest`` instead of pyotp: pyotp folds full-width and circled digits into ASCII, takes
four to five times as long, and stops at the first matching step, so its response time reveals which step
matched. pyotp writes the provisioning URI, because it knows what authenticator apps expect.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal, TypeGuard
from urllib.parse import quote

from mks_hardening._core.checks import choice, instance, number, text_of, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError

__all__ = ["TOTPMatch", "generate_secret", "provisioning_uri", "totp_code", "verify_totp"]

Algorithm = Literal["sha1", "sha256", "sha512"]

_ALGORITHMS: Final = ("sha1", "sha256", "sha512")
_TYPED: Final = re.compile(r" {0,8}([0-9]{3}) ?([0-9]{3}) {0,8}")
# The URI contains the issuer twice; this limit leaves room in the QR code (see ``qr``).
_LONGEST_LABEL: Final = 256
_SECRET_BYTES: Final = 20  # RFC 4226, section 4, R6 recommends 160 bits
_MINIMUM_BYTES: Final = 16  # and requires 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TOTPMatch:
    """A code that is acceptable now.

    Attributes:
        step: number of the time step the code belongs to; store it as ``last_step``.
        drift: how many steps the other clock is ahead (positive) or behind (negative).
    """

    step: int
    drift: int


def generate_secret() -> str:
    """Generate a secret of 160 bits in base32 with the system's CSPRNG (ASVS 5.0, 6.5.3)."""
    return base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")


def totp_code(
    secret: str,
    *,
    at: float | None = None,
    digits: int = 6,
    period: int = 30,
    algorithm: Algorithm = "sha1",
) -> str:
    """Return the code of a secret at a given time (RFC 6238, section 4).

    Args:
        secret: base32, case-insensitive; spaces and padding are ignored.
        at: wall time in seconds since the epoch; by default the current time.
        digits: 6 to 8.
        period: length of a step in seconds, at most 120 (NIST SP 800-63B-4, 3.1.4.1).
        algorithm: ``sha1`` is supported by every authenticator app.

    Raises:
        ConfigurationError: a parameter is invalid, or the secret is not base32 of at least 128 bits.
    """
    _check_parameters(digits=digits, period=period, algorithm=algorithm)
    step = _step_at(at, period)
    return _hotp(decode_secret(secret), step, digits, algorithm).decode("ascii")


def verify_totp(
    secret: str,
    code: str,
    *,
    digits: int = 6,
    period: int = 30,
    algorithm: Algorithm = "sha1",
    window: int = 1,
    last_step: int | None = None,
    at: float | None = None,
) -> TOTPMatch | None:
    """Return the step a code belongs to, or ``None`` if it must be refused.

    A code is exactly ``digits`` ASCII digits: no blanks, signs, underscores, full-width or circled digits, so
    that one code has one spelling. All steps of the window are always computed and compared.

    Args:
        secret: base32, case-insensitive; spaces and padding are ignored.
        code: the code as typed.
        digits: 6 to 8.
        period: length of a step in seconds.
        algorithm: hash function of the secret.
        window: number of steps accepted before and after the current one, 0 to 10.
        last_step: the last accepted step; this and every earlier one is refused (RFC 6238, section 5.2; ASVS
            5.0, 6.5.1), even after the wall clock was set back. The caller must store ``match.step``
            atomically, only if it is greater than the stored one.
        at: wall time in seconds since the epoch; by default the current time.

    Raises:
        ConfigurationError: a parameter is invalid, or the secret is not base32 of at least 128 bits.
    """
    _check_parameters(digits=digits, period=period, algorithm=algorithm, window=window)
    key = decode_secret(secret)
    if last_step is not None:
        instance(last_step, int, parameter="last_step")
    if not is_code(code, digits=digits):
        return None
    present = _step_at(at, period)
    step = matching_step(key, code, present, digits=digits, algorithm=algorithm, window=window)
    if step is None or (last_step is not None and step <= last_step):
        return None
    return TOTPMatch(step=step, drift=step - present)


def provisioning_uri(
    secret: str,
    *,
    account_name: str,
    issuer: str,
    digits: int = 6,
    period: int = 30,
    algorithm: Algorithm = "sha1",
) -> str:
    """Return the ``otpauth://`` URI for an authenticator app.

    Names are percent-encoded UTF-8; a space is ``%20``.

    Raises:
        ConfigurationError: a name is empty, too long for a QR code, or contains a colon or control character
            (the colon separates issuer and account in the label); or a parameter is invalid.
        MissingDependencyError: pyotp is not installed.
    """
    _check_parameters(digits=digits, period=period, algorithm=algorithm)
    decode_secret(secret)
    check_label(issuer, parameter="issuer")
    check_label(account_name, parameter="account_name")
    with optional("pyotp", extra="security"):
        from pyotp.utils import build_uri
    # The key URI format omits the padding, and apps refuse what they do not expect.
    compact = secret.replace(" ", "").rstrip("=").upper()
    return build_uri(compact, account_name, issuer=issuer, algorithm=algorithm, digits=digits, period=period)


def is_code(code: object, *, digits: int = 6) -> TypeGuard[str]:
    """Return whether the value is exactly that many ASCII digits."""
    # Both checks: isdigit() is true for digits of every script, and int() would read them.
    return isinstance(code, str) and len(code) == digits and code.isascii() and code.isdigit()


def typed_code(text: object) -> str | None:
    """Return the six digits of a code as typed or pasted.

    Spaces around the code, and one in the middle as apps display it, are allowed.
    """
    found = _TYPED.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else found[1] + found[2]


def matching_step(
    key: bytes, code: str, present: int, *, digits: int = 6, algorithm: Algorithm = "sha1", window: int = 1
) -> int | None:
    """Return the latest step of the window with this code, used or not; no early exit."""
    wanted = code.encode("ascii")
    found = None
    for step in range(max(0, present - window), present + window + 1):
        if hmac.compare_digest(_hotp(key, step, digits, algorithm), wanted):
            found = step
    return found


def decode_secret(secret: str) -> bytes:
    """Return the key of a base32 secret.

    Raises:
        ConfigurationError: not base32, or fewer than 128 bits.
    """
    compact = text_of(secret, parameter="secret").replace(" ", "").rstrip("=")
    try:
        key = base64.b32decode(compact + "=" * (-len(compact) % 8), casefold=True)
    # The error has no cause, because the cause would quote the secret.
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _MINIMUM_BYTES:
        raise ConfigurationError(
            f"secret must be base32 of at least {_MINIMUM_BYTES} bytes; create one with generate_secret()",
            parameter="secret",
        )
    return key


def check_label(text: object, *, parameter: str) -> None:
    """Check a label of a provisioning URI, including its length in the QR code."""
    usable = (
        isinstance(text, str)
        and bool(text)
        and text.isprintable()
        # A colon separates issuer and account in the label, so one in a name would change the apparent issuer.
        and ":" not in text
        and text == text.strip()
        and len(quote(text)) <= _LONGEST_LABEL
    )
    if not usable:
        raise ConfigurationError(
            f"{parameter} must be printable, without a colon or spaces at the ends, and at most {_LONGEST_LABEL} "
            "characters when percent-encoded (a Japanese one counts 9)",
            parameter=parameter,
        )


def _hotp(key: bytes, step: int, digits: int, algorithm: Algorithm) -> bytes:
    """Compute an HOTP value with dynamic truncation (RFC 4226, section 5.3)."""
    digest = hmac.digest(key, step.to_bytes(8, "big"), algorithm)
    offset = digest[-1] & 0x0F
    truncated = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return b"%0*d" % (digits, truncated % 10**digits)


def _step_at(at: float | None, period: int) -> int:
    moment = SYSTEM_CLOCK.time() if at is None else number(at, parameter="at", minimum=0, maximum=2**53)
    return int(moment // period)


def _check_parameters(*, digits: int, period: int, algorithm: str, window: int = 0) -> None:
    whole_number(digits, parameter="digits", minimum=6, maximum=8)
    whole_number(period, parameter="period", minimum=1, maximum=120)
    whole_number(window, parameter="window", minimum=0, maximum=10)
    choice(algorithm, _ALGORITHMS, parameter="algorithm")
