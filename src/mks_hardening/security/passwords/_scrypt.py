"""scrypt, and all older hash formats that werkzeug can check."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.optional_imports import optional
from mks_hardening.security.passwords._hash_forms import is_verifiable

__all__ = ["Scrypt"]

# The minimum that the OWASP password storage guide and ASVS 5.0, 11.4.2 accept for 32 MiB of memory.
_METHOD: Final = "scrypt:32768:8:3"
_SALT_LENGTH: Final = 16
_NOBODY: Final = (
    "scrypt:32768:8:3$qQTjhg54lqj06TK5$"
    "2efec63357de5e33e211936facf791b28313123ede1fadf2a1408afee1ebb19b"
    "77f031e5d7a9cb8809f49c3be819a4d2efb5b7794e4b70587a731dc1ad58b5e7"
)


class Scrypt:
    """scrypt by werkzeug, which is imported on first use."""

    name: str = "scrypt"
    memory: int = 128 * 32768 * 8

    def __init__(self, *, method: str = _METHOD, nobody: str = _NOBODY) -> None:
        self._method = method
        self.nobody: str = nobody

    def make(self, password: str) -> str:
        """Hash a password with the current parameters and a new salt."""
        with optional("werkzeug", extra="security"):
            from werkzeug.security import generate_password_hash
        return generate_password_hash(password, method=self._method, salt_length=_SALT_LENGTH)

    def check(self, stored: str, password: str) -> bool | None:
        """Return whether a hash matches a password; ``None`` for an unknown method or impossible parameters."""
        if not is_verifiable(stored):
            return None
        with optional("werkzeug", extra="security"):
            from werkzeug.security import check_password_hash
        try:
            return check_password_hash(stored, password)
        except (
            ValueError,
            TypeError,
            OverflowError,
        ):  # which error hashlib raises depends on how the parameters are wrong
            return None

    def is_present(self, stored: str) -> bool:
        """Return whether method and salt length are current."""
        method, _, rest = stored.partition("$")
        # A longer salt is no reason to rehash; a shorter one is.
        return method == self._method and len(rest.partition("$")[0]) >= _SALT_LENGTH
