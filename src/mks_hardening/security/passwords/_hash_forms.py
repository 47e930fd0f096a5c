"""Forms of stored password hashes: those of other systems, and which of them a check may spend time on."""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Final

__all__ = ["BCRYPT", "is_verifiable", "method_of", "translated"]

_NUMBER: Final = "([1-9][0-9]{0,9})"
_BASE64: Final = "([A-Za-z0-9+/]+=*)"
_DJANGO_PBKDF2: Final = re.compile(rf"pbkdf2_(sha1|sha256)\${_NUMBER}\$([^$]+)\${_BASE64}")
_DJANGO_SCRYPT: Final = re.compile(rf"scrypt\${_NUMBER}\$([^$]+)\${_NUMBER}\${_NUMBER}\${_BASE64}")
_DJANGO_PREFIX: Final = re.compile(r"\A(?:argon2(?=\$argon2)|bcrypt\$(?=\$2))")
BCRYPT: Final = re.compile(r"(bcrypt_sha256\$)?(\$2[aby]\$[0-9]{2})\$[./A-Za-z0-9]{53}")
"""bcrypt as in crypt(5), and as Django's ``BCryptSHA256PasswordHasher`` stores it."""

# A hash comes from a database that somebody else filled: about five seconds of work and 1 GiB at most.
_BOUNDS: Final = (
    (rf"\$argon2(?:id|i|d)\$(?:v=19\$)?m=([1-9][0-9]{{0,5}}),t={_NUMBER},p={_NUMBER}\$[^$]+\$[^$]+", 2**24),
    (r"(?:bcrypt_sha256\$)?\$2[aby]\$(?:0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}", 1),
    (rf"scrypt:{_NUMBER}:{_NUMBER}:{_NUMBER}\$[^$]+\$[^$]+", 2**22),
    (rf"pbkdf2:[a-z0-9_]+:{_NUMBER}\$[^$]+\$[^$]+", 10_000_000),
)
"""Forms, and the most that the product of their parameters may be."""


def translated(stored: str) -> str:
    """Return a hash of Django in the form of werkzeug, argon2 or bcrypt, and any other hash as it is.

    The parameters, salts and hashes of both systems are the same (PBKDF2: RFC 8018, scrypt: RFC 7914).
    """
    if found := _DJANGO_PBKDF2.fullmatch(stored):
        digest, rounds, salt, value = found.groups()
        return f"pbkdf2:{digest}:{rounds}${salt}${_hexadecimal(value)}"
    if found := _DJANGO_SCRYPT.fullmatch(stored):
        n, salt, r, p, value = found.groups()
        return f"scrypt:{n}:{r}:{p}${salt}${_hexadecimal(value)}"
    return _DJANGO_PREFIX.sub("", stored)


def is_verifiable(stored: str) -> bool:
    """Return whether a hash, as ``translated`` returns it, has a known form and parameters within the bounds."""
    found = ((re.fullmatch(form, stored), most) for form, most in _BOUNDS)
    return any(form and math.prod(map(int, form.groups())) <= most for form, most in found)


def method_of(stored: str) -> str:
    """Return method and parameters without salt and hash: they determine the cost of a check."""
    if found := BCRYPT.fullmatch(stored):
        return found[2]
    return stored.rpartition("$")[0].rpartition("$")[0]


def _hexadecimal(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except binascii.Error:
        return "-"
