"""Recovery codes: 120 random bits each, in six groups, stored as salted and keyed digests, valid once.

With at least 112 bits a fast hash is enough (ASVS 5.0, 6.5.2; NIST SP 800-63B, look-up secrets): a check costs
two HMACs and one lookup, however many codes are left, whereas ten scrypt hashes cost a second of CPU.
"""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from typing import Final

from mks_hardening._core.checks import whole_number

__all__ = ["RecoveryCodes", "generate_recovery_codes", "normalize_recovery_code"]

RECOVERY_CODES: Final = 10
"""Default number of codes per account."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
_LENGTH: Final = 24
_GROUP: Final = 4
_MOST: Final = 1000
_LONGEST_INPUT: Final = 128

# Characters that users and Japanese input methods put between groups, and letters that are mistaken for digits.
_FOLDED: Final = str.maketrans(
    {**dict.fromkeys(" \t\r\n-_‐‑‒–—―−ー", None), "O": "0", "I": "1", "L": "1"}  # noqa: RUF001 - the look-alikes are the point
)


class RecoveryCodes(tuple[str, ...]):
    """Recovery codes to be shown once; a tuple of strings whose ``repr`` and ``str`` hide them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"RecoveryCodes({len(self)} codes)"

    __str__ = __repr__


def generate_recovery_codes(number: int = RECOVERY_CODES) -> RecoveryCodes:
    """Generate codes with the system's CSPRNG, as ``XXXX-XXXX-XXXX-XXXX-XXXX-XXXX``.

    Raises:
        ConfigurationError: not a number from 1 to 1000.
    """
    wanted = whole_number(number, parameter="number", minimum=1, maximum=_MOST)
    return RecoveryCodes(
        _grouped("".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))) for _ in range(wanted)
    )


def normalize_recovery_code(text: object) -> str | None:
    """Return the normalised form of a code, or ``None`` if the text cannot be one.

    Case, blanks, all kinds of dashes and full-width forms are folded; O counts as 0, I and L as 1.
    """
    # NFKC can make a text eighteen times as long (U+FDFA), so the length is limited before the normalisation.
    if not isinstance(text, str) or len(text) > _LONGEST_INPUT:
        return None
    folded = unicodedata.normalize("NFKC", text).upper().translate(_FOLDED)
    return folded if len(folded) == _LENGTH and set(folded) <= set(_ALPHABET) else None


def new_salt() -> str:
    """Return a salt of 128 bits, shared by the codes of one user."""
    return secrets.token_hex(16)


def hash_recovery_code(code: str, *, salt: str) -> str:
    """Return the salted hash of a normalised code, before it is keyed (see ``_digests``)."""
    return hmac.digest(bytes.fromhex(salt), code.encode("ascii"), "sha256").hex()


def _grouped(text: str) -> str:
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))
