"""Keyed digests of what one user knows or holds: recovery codes and the tokens of remembered devices.

Each account has a key of its own, sealed in its record by the secret box. So a stolen database tells nothing
without the box's keys, one look-up among the digests finds a code whatever their number, and a rotation of the
box's keys reseals 32 bytes instead of voiding every code (ASVS 5.0, 6.5.2 and 11.4.1; NIST SP 800-63B, look-up
secrets).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from mks_hardening.security.second_factor.codes.recovery_codes import hash_recovery_code

__all__ = ["KeyedDigests", "new_digest_key"]

_KEY_BYTES: Final = 32


class KeyedDigests:
    """Digests under the key of one account."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = bytes.fromhex(key)

    def of_recovery_code(self, code: str, *, salt: str) -> str:
        """The stored form of a normalised recovery code."""
        return self.of_salted_code(hash_recovery_code(code, salt=salt))

    def of_salted_code(self, hashed: str) -> str:
        """The same, from the salted hash that the first form of records kept."""
        return self._digest(b"recovery", hashed)

    def of_device(self, user_id: str, token: str) -> str:
        """The stored form of a device's token."""
        return self.of_hashed_token(hashed_token(user_id, token))

    def of_hashed_token(self, hashed: str) -> str:
        """The same, from the plain hash that the first form of records kept."""
        return self._digest(b"device", hashed)

    def _digest(self, use: bytes, text: str) -> str:
        # The use stands in front (domain separation): a digest of one kind can never be passed off as one of the
        # other.
        return hmac.digest(self._key, use + b"\0" + text.encode("ascii"), "sha256").hex()


def new_digest_key() -> str:
    """A new key of 256 bits, as text."""
    return secrets.token_hex(_KEY_BYTES)


def hashed_token(user_id: str, token: str) -> str:
    """A token's hash before it is keyed, bound to its user."""
    # surrogatepass: an application may hand in any text, and a digest must not raise where a mere look-up fails.
    return hashlib.sha256(f"{user_id}\0{token}".encode("utf-8", "surrogatepass")).hexdigest()
