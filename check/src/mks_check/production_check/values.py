"""Judgements about single values that several checks share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, cast
from urllib.parse import SplitResult, unquote, urlsplit

from mks_hardening._core.environment.parsers import parse_bool
from mks_hardening._core.loopback import is_loopback

__all__ = [
    "MONTHS_6",
    "as_integer",
    "as_list",
    "as_seconds",
    "host_is_remote",
    "is_on",
    "is_public_bind",
    "is_weak_password",
    "is_weak_secret",
    "password_of",
    "size_of",
    "split_url",
    "trusts_everyone",
]

MONTHS_6: Final = 180 * 86_400
"""Shortest lifetime of HSTS that counts as protection (ASVS 5.0, 3.4.1 asks for a year, HTTP Observatory for six months)."""

_PLACEHOLDERS: Final = re.compile(
    r"change.?me|replace.?me|secret.?key|your.?secret|insecure|example|default|password|super.?secret|"
    r"development|(?:^|[^a-z])dev(?:[^a-z]|$)|test.?secret|12345|abcdef",
    re.IGNORECASE,
)
_WELL_KNOWN: Final = frozenset((
    "", "admin", "app", "changeme", "default", "django", "example", "flask", "guest", "letmein", "mysql", "pass",
    "passw0rd", "password", "password1", "postgres", "postgresql", "qwerty", "redis", "root", "secret", "test",
    "user", "welcome", "12345", "123456", "12345678",
))  # fmt: skip
_EVERYONE: Final = frozenset(("*", "0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1"))
_SIZES: Final = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kb": 1024,
    "m": 1024**2,
    "mb": 1024**2,
    "g": 1024**3,
    "gb": 1024**3,
}
_SECONDS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def is_on(value: object) -> bool:
    """Return whether a value switches something on, as text of a variable or as a setting of a framework."""
    if isinstance(value, str):
        try:
            return parse_bool(value)
        except ValueError:
            return False
    return value is True or (isinstance(value, int) and value == 1)


def is_public_bind(bind: str) -> bool:
    """Return whether an address to listen on means every interface."""
    host = bind.strip("'\"").removeprefix("tcp://")
    return (
        bool(re.match(r"(?:0\.0\.0\.0|\[::\]|\*|::)?(?::\d+)?$", host)) and not host.isdigit() and host != ""
    )


def is_weak_secret(value: object) -> str:
    """Return why a key is weak (without the key itself); empty if it is strong enough (NIST SP 800-132, 128 bits)."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    if not text:
        return "empty"
    if len(text) < 32:
        return f"{len(text)} characters"
    if _PLACEHOLDERS.search(text):
        return "a placeholder"
    counts = Counter(text).values()
    bits = -sum(count * math.log2(count / len(text)) for count in counts)
    return f"{len(counts)} different characters" if bits < 80 else ""


def is_weak_password(password: str) -> bool:
    """Return whether everybody would try this password first."""
    return password.lower() in _WELL_KNOWN


def trusts_everyone(networks: Iterable[str]) -> list[str]:
    """Return the networks that contain every address, or half of them."""
    return [network for network in networks if network.strip() in _EVERYONE]


def split_url(text: str) -> SplitResult | None:
    """Return the parts of a URL with a host; ``None`` if there is none or it cannot be read."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme and parts.netloc else None


def password_of(parts: SplitResult) -> str:
    """Return the decoded password of a URL."""
    return unquote(parts.password or "")


def host_is_remote(parts: SplitResult) -> bool:
    """Return whether a URL names another machine; a path or an empty host is this one."""
    host = parts.hostname or ""
    return bool(host) and not is_loopback(host)


def as_list(value: object) -> list[str]:
    """Return the items of a setting: a list of texts, or one text with commas or spaces."""
    if isinstance(value, str):
        return [item for item in re.split(r"[,\s]+", value) if item]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [item for item in cast("Iterable[object]", value) if isinstance(item, str)]
    return []


def as_seconds(value: object) -> float | None:
    """Return a duration in seconds: a number, a ``timedelta``, or text such as ``30s``; ``None`` if unreadable."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    match = (
        re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)\s*", value.lower())
        if isinstance(value, str)
        else None
    )
    return float(match[1]) * _SECONDS[match[2]] if match and match[2] in _SECONDS else None


def size_of(text: str) -> int | None:
    """Return a size such as ``8m`` in bytes; ``None`` if unreadable."""
    match = re.fullmatch(r"\s*(\d{1,15})\s*([a-z]*)\s*", text.lower())
    return int(match[1]) * _SIZES[match[2]] if match and match[2] in _SIZES else None


def as_integer(value: object) -> int | None:
    """Return a whole number, also from text; ``None`` if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*", value) else None
