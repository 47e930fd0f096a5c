"""Keyed digests of a user's recovery codes and device tokens.

Each account has a key of its own, encrypted in its record by the secret box. So a stolen database reveals
nothing without the keys of the box, one lookup among the digests finds a code however many there are, and a key
rotation re-encrypts 32 bytes instead of voiding every code (ASVS 5.0, 6.5.2 and 11.4.1; NIST SP 800-63B,
look-up secrets).
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
        """Return the stored form of a normalised recovery code."""
        return self.of_salted_code(hash_recovery_code(code, salt=salt))

    def of_salted_code(self, hashed: str) -> str:
        """Return the stored form for the salted hash in records of version 1."""
        return self._digest(b"recovery", hashed)

    def of_device(self, user_id: str, token: str) -> str:
        """Return the stored form of a device token."""
        return self.of_hashed_token(hashed_token(user_id, token))

    def of_hashed_token(self, hashed: str) -> str:
        """Return the stored form for the plain hash in records of version 1."""
        return self._digest(b"device", hashed)

    def _digest(self, use: bytes, text: str) -> str:
        # Prefixed with the use (domain separation): a digest of one kind never matches one of the other.
        return hmac.digest(self._key, use + b"\0" + text.encode("ascii"), "sha256").hex()


def new_digest_key() -> str:
    """Return a new key of 256 bits, in hexadecimal."""
    return secrets.token_hex(_KEY_BYTES)


def hashed_token(user_id: str, token: str) -> str:
    """Return the hash of a token and its user, before it is keyed."""
    # surrogatepass: an application may pass any string, and a digest must not raise where a lookup merely fails.
    return hashlib.sha256(f"{user_id}\0{token}".encode("utf-8", "surrogatepass")).hexdigest()
