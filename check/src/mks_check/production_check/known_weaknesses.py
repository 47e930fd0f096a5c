"""Versions of packages with known weaknesses: a small table for a first look; a scanner of advisories knows more."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["AS_OF", "known_weakness"]

AS_OF: Final = "2026-06"
"""Month in which the table was last compared with the advisories."""

_FIXED: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "aiohttp": (("3.12.14", "CVE-2025-53643"),),
    "cryptography": (("44.0.1", "CVE-2024-12797"),),
    "django": (("4.2.26", "CVE-2025-64459"), ("5.1.14", "CVE-2025-64459"), ("5.2.8", "CVE-2025-64459")),
    "flask": (("2.2.5", "CVE-2023-30861"), ("2.3.2", "CVE-2023-30861")),
    "flask-cors": (("6.0.0", "CVE-2024-6866"),),
    "gunicorn": (("23.0.0", "CVE-2024-6827"),),
    "h11": (("0.16.0", "CVE-2025-43859"),),
    "jinja2": (("3.1.6", "CVE-2025-27516"),),
    "python-multipart": (("0.0.18", "CVE-2024-53981"),),
    "requests": (("2.32.4", "CVE-2024-47081"),),
    "starlette": (("0.49.1", "CVE-2025-62727"),),
    "tornado": (("6.5", "CVE-2025-47287"),),
    "urllib3": (("1.26.19", "CVE-2024-37891"), ("2.6.0", "CVE-2025-66418")),
    "waitress": (("3.0.1", "CVE-2024-49768"),),
    "werkzeug": (("3.0.6", "CVE-2024-49767"),),
}
"""First versions without the weakness, one for each maintained line, in ascending order."""


def known_weakness(package: str, version: str) -> str:
    """Return which weakness a version has and where it is fixed; empty if none is known."""
    number = _number(version)
    lines = _FIXED.get(package, ())
    if not number or not lines:
        return ""
    for fixed, advisory in lines:
        bound = _number(fixed)
        last = fixed == lines[-1][0]
        # A later release of a maintained line has the fix, whatever newer lines need.
        if number < bound and (last or number[:2] == bound[:2] or number < _number(lines[0][0])):
            return f"{package} {version}: {advisory}, fixed in {fixed}"
        if not last and number[:2] == bound[:2]:
            return ""
    return ""


def _number(version: str) -> tuple[int, ...]:
    match = re.match(r"\d{1,9}(?:\.\d{1,9}){0,3}", version)
    return tuple(map(int, match[0].split("."))) if match else ()
