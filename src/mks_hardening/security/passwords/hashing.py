"""Functions that hash and verify passwords with one ``PasswordHasher`` for the process, with its defaults."""

from __future__ import annotations

from functools import cache

from mks_hardening._core.process.after_fork import ModuleLock
from mks_hardening.security.passwords.hasher import PasswordHasher

__all__ = ["hash_password", "needs_rehash", "verify_password"]

_lock = ModuleLock()


def hash_password(password: str) -> str:
    """Hash a password with the ``PasswordHasher`` of this process.

    Raises:
        ValueError: empty, longer than 1024 characters, or not encodable as UTF-8.
        BackendUnavailableError: too many requests are waiting (``busy``).
        MissingDependencyError: neither argon2-cffi nor werkzeug is installed.
    """
    return process_hasher().hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Return whether the password matches the stored hash; does the same work for ``None`` (an unknown user).

    Raises:
        BackendUnavailableError: too many requests are waiting (``busy``); do not count it as a failed attempt.
        MissingDependencyError: the package that the hash needs is not installed.
    """
    return process_hasher().verify(password, stored)


def needs_rehash(stored: str) -> bool:
    """Return whether a stored hash has another scheme or other parameters than new hashes.

    If so, hash the password again after a successful sign-in.
    """
    return process_hasher().needs_rehash(stored)


def process_hasher() -> PasswordHasher:
    """Return the hasher of this process, for components that take a hasher."""
    with _lock:  # two hashers would have twice as many slots
        return _create_hasher()


@cache
def _create_hasher() -> PasswordHasher:
    return PasswordHasher()
