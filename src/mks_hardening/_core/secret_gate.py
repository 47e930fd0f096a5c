"""The cheap question before the dear one: can this text hold a secret at all?

Almost no log line does, and running the patterns over each would cost more than the rest of the formatter. Every
form of secret the patterns know needs a rare character (a separator, a quote, one letter of a token's prefix) or
many digits. One ``bytes.translate`` throws everything else away; only what is left decides which literals are then
looked for. The gate may say yes to a harmless text; it never says no to one the patterns would change.
"""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.secret_names import STEMS

__all__ = ["may_hold_secret", "stems_in_bytes"]

_DIGITS: Final = b"0123456789"
_TRIGGERS: Final = b"=:'\"`\\>%_-JIB\xef"
_ZEROED: Final = bytes.maketrans(_DIGITS, b"0" * 10)
_DROP: Final = bytes(byte for byte in range(256) if byte not in _DIGITS + _TRIGGERS)

# Where a card number can hide: digits become 0, blanks and dashes vanish, all else breaks the run.
_RUNS: Final = bytes(48 if byte in _DIGITS else 120 for byte in range(256))
_RUN: Final = b"0" * 13

# Triggers that separate a name from its value; the others only announce the prefix of a token.
_NOT_SEPARATORS: Final = b"0_-JIB\xef"
_QUERY: Final = re.compile(rb"[?&](?:code|sig|signature|ticket|samlresponse|assertion)=")
_GITHUB: Final = re.compile(rb"gh[pousr]_|github_pat_")
_HOOK: Final = re.compile(rb"(?i:hooks\.slack\.com|/api/webhooks/|\.office\.com/)")
_PARTICLE: Final = re.compile(rb"\xe3\x81[\xaf\x8c][ \t]{0,2}[!-~]{4}")
_WIDE: Final = re.compile(rb"\xef\xbc[\x90-\x9a\x9d]")


def stems_in_bytes(stems: tuple[str, ...] = STEMS) -> re.Pattern[bytes]:
    """The pattern for stems of secret names in lower-case UTF-8."""
    return re.compile(b"|".join(re.escape(stem.encode()) for stem in stems))


def may_hold_secret(text: bytes, stems: re.Pattern[bytes]) -> bool:
    """The question for plain text in UTF-8."""
    kept = text.translate(_ZEROED, _DROP)
    digits = kept.count(b"0")
    if digits >= 13 and holds_digits(text):
        return True
    if len(kept) == digits and text.isascii() and b"earer" not in text and b" is " not in text:
        return False
    return _looks_closer(text, kept, stems)


def holds_digits(data: bytes) -> bool:
    """Whether 13 digits stand in a row, blanks and dashes aside."""
    return _RUN in data.translate(_RUNS, b" -")


def _looks_closer(data: bytes, kept: bytes, stems: re.Pattern[bytes]) -> bool:
    # Spelled out: a loop over tables costs more than all of these look-ups together.
    if b"earer" in data or _holds_token(data, kept) or (b":" in kept and _holds_url(data)):
        return True
    lowered = data.lower()
    if b"=" in kept and _QUERY.search(lowered):
        return True
    named = b" is " in data or b"--" in data or bool(kept.translate(None, _NOT_SEPARATORS))
    if not named and not data.isascii():
        named = (b"\xef" in kept and _WIDE.search(data) is not None) or _PARTICLE.search(data) is not None
    if named and b"\xef" in kept and holds_digits(unicode_digits(data)):
        return True
    return named and stems.search(lowered) is not None


def unicode_digits(data: bytes) -> bytes:
    """The data with full-width digits as ASCII ones."""
    return re.sub(rb"\xef\xbc([\x90-\x99])", lambda match: bytes((match[1][0] - 0x60,)), data)


def _holds_url(data: bytes) -> bool:
    return b"://" in data and (b"@" in data or _HOOK.search(data) is not None)


def _holds_token(data: bytes, kept: bytes) -> bool:
    return (
        (b"-" in kept and _dashed(data))
        or (b"_" in kept and _underscored(data))
        or (b"I" in kept and (b"AKIA" in data or b"ASIA" in data or b"AIza" in data))
        or (b"J" in kept and b"eyJ" in data)
        or (
            b"B" in kept
            and (b"Basic" in data or b"BASIC" in data or b"BEARER" in data or b"slack.com" in data)
        )
    )


def _dashed(data: bytes) -> bool:
    return (
        b"sk-" in data
        or b"glpat-" in data
        or b"xox" in data
        or b"xapp-" in data
        or b"pypi-" in data
        or b"-----BEGIN" in data
    )


def _underscored(data: bytes) -> bool:
    return (
        (b"gh" in data and _GITHUB.search(data) is not None)
        or b"k_live_" in data
        or b"k_test_" in data
        or b"whsec_" in data
        or b"npm_" in data
    )
