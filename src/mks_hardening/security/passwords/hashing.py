"""Passwords hashed and checked by one ``PasswordHasher`` for the whole process, with its defaults."""

from __future__ import annotations

from functools import cache

from mks_hardening._core.process.after_fork import ModuleLock
from mks_hardening.security.passwords.hasher import PasswordHasher

__all__ = ["hash_password", "needs_rehash", "verify_password"]

_lock = ModuleLock()


def hash_password(password: str) -> str:
    """The stored form of a password, as ``PasswordHasher`` makes it.

    Raises:
        ValueError: empty, longer than 1024 characters, or not encodable as UTF-8.
        BackendUnavailableError: too many wait already (``busy``).
        MissingDependencyError: werkzeug is not installed, nor is argon2-cffi.
    """
    return process_hasher().hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password belongs to the stored form; the same work for ``None`` (an unknown user).

    Raises:
        BackendUnavailableError: too many wait already (``busy``); nobody should count that as a failure.
        MissingDependencyError: the package that the form needs is not installed.
    """
    return process_hasher().verify(password, stored)


def needs_rehash(stored: str) -> bool:
    """Whether a stored form was made with another scheme or other parameters than today's.

    Hash again after a good sign-in.
    """
    return process_hasher().needs_rehash(stored)


def process_hasher() -> PasswordHasher:
    """The one hasher of this process, for what takes one as a part."""
    with _lock:  # two of them would have twice the slots
        return _made()


@cache
def _made() -> PasswordHasher:
    return PasswordHasher()
