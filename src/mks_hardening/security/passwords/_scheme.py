"""The interface of a password hashing scheme."""

from __future__ import annotations

from typing import Protocol

__all__ = ["HashScheme"]


class HashScheme(Protocol):
    """A password hashing scheme, with the current parameters for new hashes."""

    name: str
    """Name, as in ``PasswordHasher(scheme=...)``."""
    memory: int
    """Bytes of memory that one computation takes."""
    nobody: str
    """Hash of a discarded random password, with the current parameters."""

    def make(self, password: str) -> str:
        """Hash a password."""
        ...

    def check(self, stored: str, password: str) -> bool | None:
        """Return whether a hash matches a password; ``None`` for a hash that cannot be parsed."""
        ...

    def is_present(self, stored: str) -> bool:
        """Return whether a hash has the current parameters."""
        ...
