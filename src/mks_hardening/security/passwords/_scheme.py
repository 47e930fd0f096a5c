"""What a way to hash passwords can do, whatever package does it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["HashScheme"]


class HashScheme(Protocol):
    """One way, with today's parameters for new forms."""

    name: str
    """As in ``PasswordHasher(scheme=...)``."""
    memory: int
    """Bytes that one computation takes."""
    nobody: str
    """The form of a random password that was thrown away, with today's parameters."""

    def make(self, password: str) -> str:
        """The form of a password."""
        ...

    def check(self, stored: str, password: str) -> bool | None:
        """Whether they belong together; ``None`` when the form cannot be read."""
        ...

    def is_present(self, stored: str) -> bool:
        """Whether a form was made with today's parameters."""
        ...
