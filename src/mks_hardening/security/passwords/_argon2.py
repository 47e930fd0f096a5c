"""Argon2id (RFC 9106), if argon2-cffi is installed."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.optional_imports import optional
from mks_hardening.security.passwords._hash_forms import is_verifiable

__all__ = ["PREFIX", "Argon2"]

PREFIX: Final = "$argon2"
_MEMORY_KIB: Final = 47_104  # 46 MiB, for which the OWASP password storage guide requires at least one pass
_PASSES: Final = 6  # as much work as scrypt with our parameters, so that checks of both take equally long
_LANES: Final = 1  # one thread, so that its CPU time measures the work done
_NOBODY: Final = (
    "$argon2id$v=19$m=47104,t=6,p=1$lxuff4UZRZmTVubAklcs+Q$X7TJ6b9wPteJ9Tb4oudMw9SctE1Gp/eIgCqDEwMV2T4"
)


class Argon2:
    """Argon2id by argon2-cffi, with the parameters of this package."""

    name: str = "argon2id"
    memory: int = _MEMORY_KIB * 1024

    def __init__(
        self, *, memory_kib: int = _MEMORY_KIB, passes: int = _PASSES, nobody: str = _NOBODY
    ) -> None:
        with optional("argon2", extra="argon2"):
            from argon2 import PasswordHasher
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=_LANES)
        self.nobody: str = nobody

    def make(self, password: str) -> str:
        """Hash a password with the current parameters and a new salt."""
        return self._hasher.hash(password)

    def check(self, stored: str, password: str) -> bool | None:
        """Return whether a hash matches a password; ``None`` for a hash that argon2 cannot parse."""
        from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

        if not is_verifiable(stored):
            return None
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError):
            return None

    def is_present(self, stored: str) -> bool:
        """Return whether a hash has the current parameters."""
        from argon2.exceptions import InvalidHashError

        try:
            return not self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return False
