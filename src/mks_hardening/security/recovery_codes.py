"""Recovery codes: 120 random bits each, typed in six groups, stored as salted hashes, used once.

With at least 112 bits a salted fast hash is enough (ASVS 5.0, 6.5.2; NIST SP 800-63B, look-up secrets): a guess
costs one HMAC and a few compares, whatever number of codes is left, where ten scrypt hashes cost a second of CPU.
"""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from collections.abc import Iterable
from typing import Final

__all__ = ["RecoveryCodes", "generate_recovery_codes", "normalize_recovery_code"]

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
_LENGTH: Final = 24
_GROUP: Final = 4
_LONGEST_INPUT: Final = 128

# What people and Japanese input methods put between groups, and the letters that are read for others.
_FOLDED: Final = str.maketrans(
    {**dict.fromkeys(" \t\r\n-_‐‑‒–—―−ー", None), "O": "0", "I": "1", "L": "1"}  # noqa: RUF001 - the look-alikes are the point
)


class RecoveryCodes(tuple[str, ...]):
    """The codes to be shown once; a tuple of strings whose text form hides them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"RecoveryCodes({len(self)} codes)"

    __str__ = __repr__


def generate_recovery_codes(number: int = 10) -> RecoveryCodes:
    """New codes from the system's CSPRNG, as ``XXXX-XXXX-XXXX-XXXX-XXXX-XXXX``."""
    return RecoveryCodes(
        _grouped("".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))) for _ in range(number)
    )


def normalize_recovery_code(text: object) -> str | None:
    """The one spelling of a code, or ``None`` when this cannot be one.

    Case, blanks, all kinds of dashes and full-width forms are folded; O counts as 0, I and L as 1.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_INPUT:
        return None
    folded = unicodedata.normalize("NFKC", text).upper().translate(_FOLDED)
    return folded if len(folded) == _LENGTH and set(folded) <= set(_ALPHABET) else None


def new_salt() -> str:
    """A salt of 128 bits, one for the codes of one user."""
    return secrets.token_hex(16)


def hash_recovery_code(code: str, *, salt: str) -> str:
    """The stored form of a normalised code."""
    return hmac.digest(bytes.fromhex(salt), code.encode("ascii"), "sha256").hex()


def find_recovery_code(code: str, hashes: Iterable[str], *, salt: str) -> str | None:
    """The stored hash of this code, compared with all of them in constant time."""
    wanted = hash_recovery_code(code, salt=salt)
    found = None
    for known in hashes:
        if hmac.compare_digest(known, wanted):
            found = known
    return found


def _grouped(text: str) -> str:
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))
