"""bcrypt hashes of other systems, which are only verified, if the package bcrypt is installed."""

from __future__ import annotations

import hashlib

from mks_hardening._core.optional_imports import optional
from mks_hardening.security.passwords._hash_forms import BCRYPT, is_verifiable

__all__ = ["Bcrypt"]

_LONGEST = 72
"""Bytes of a password that bcrypt uses; other systems cut off the rest."""


class Bcrypt:
    """bcrypt by the package of the same name; new hashes are never made with it."""

    def check(self, stored: str, password: str) -> bool | None:
        """Return whether a hash matches a password; ``None`` for parameters that are out of bounds."""
        with optional("bcrypt", extra="bcrypt"):
            import bcrypt
        found = BCRYPT.fullmatch(stored)
        if found is None or not is_verifiable(stored):
            return None
        typed = password.encode()
        if found[1]:  # the digest in hexadecimal digits
            typed = hashlib.sha256(typed).hexdigest().encode()
        try:
            return bcrypt.checkpw(typed[:_LONGEST], stored.removeprefix("bcrypt_sha256$").encode())
        except ValueError:  # a salt that is not one, or a NUL in the password
            return None
