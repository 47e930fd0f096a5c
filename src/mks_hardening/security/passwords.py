"""Passwords: scrypt through werkzeug, the same work for unknown users, and a policy people can live with.

A password is brought to Unicode form NFC (RFC 8265, OpaqueString), so that one typed on another system is the
same; nothing else is changed: case, width and blanks count (ASVS 5.0, 6.2.8).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from mks_hardening._core.lazy import optional

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hash_password", "needs_rehash", "verify_password"]

# The least that the OWASP password storage guide and ASVS 5.0, 11.4.2 accept for 32 MiB of memory.
_METHOD: Final = "scrypt:32768:8:3"
_SALT_LENGTH: Final = 16
_LONGEST: Final = 1024
# The hash of a random password that was thrown away, with the parameters above.
_NOBODY: Final = (
    "scrypt:32768:8:3$qQTjhg54lqj06TK5$"
    "2efec63357de5e33e211936facf791b28313123ede1fadf2a1408afee1ebb19b"
    "77f031e5d7a9cb8809f49c3be819a4d2efb5b7794e4b70587a731dc1ad58b5e7"
)


def hash_password(password: str) -> str:
    """The stored form of a password (scrypt, N=32768, r=8, p=3, a salt of its own).

    Raises:
        ValueError: empty, longer than 1024 characters, or not encodable as UTF-8.
        MissingDependencyError: werkzeug is not installed.
    """
    normal = _normal(password)
    if normal is None:
        raise ValueError("password must be 1 to 1024 characters that UTF-8 can encode")
    with optional("werkzeug", extra="security"):
        from werkzeug.security import generate_password_hash
    return generate_password_hash(normal, method=_METHOD, salt_length=_SALT_LENGTH)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the password belongs to the stored form; the same work for ``None`` (an unknown user).

    Answer both cases with the same words, or the answer tells what the time does not (ASVS 5.0, 6.3.8).

    Raises:
        MissingDependencyError: werkzeug is not installed.
    """
    with optional("werkzeug", extra="security"):
        from werkzeug.security import check_password_hash
    normal = _normal(password)
    matches = _check(check_password_hash, stored or _NOBODY, normal or "-")
    return matches and bool(stored) and normal is not None


def needs_rehash(stored: str) -> bool:
    """Whether the stored form was made with other parameters than today's; hash again after a good sign-in."""
    method, _, rest = stored.partition("$")
    return method != _METHOD or len(rest.partition("$")[0]) < _SALT_LENGTH


def _check(check: Callable[[str, str], bool], stored: str, password: str) -> bool:
    try:
        return check(stored, password)
    except ValueError:  # a method werkzeug does not know, or parameters it cannot use
        return False


def _normal(password: object) -> str | None:
    if not isinstance(password, str) or not 0 < len(password) <= _LONGEST:
        return None
    normal = unicodedata.normalize("NFC", password)
    try:
        normal.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return normal
