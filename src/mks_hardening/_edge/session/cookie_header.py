"""Parsing and rewriting of Cookie headers, as far as sessions need it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["CookieFilter", "find_cookie", "is_cookie_name", "sets_cookie"]

_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_AMBIGUOUS: Final = "two,values"
_MOST_OF_ONE_NAME: Final = 16


def is_cookie_name(name: object) -> bool:
    """Return whether the name is a token (RFC 6265, 4.1.1)."""
    return isinstance(name, str) and name != "" and _TOKEN.issuperset(name)


def find_cookie(header: str, needle: str) -> str | None:
    """Return the value of the cookie ``needle`` (name and ``=``) in a Cookie header.

    ``None`` if it is missing or empty. If there are two different values, the result is a text that is not a
    session id: it is unknown which one is valid, and choosing either could accept a planted cookie.
    """
    before, found, after = header.partition(needle)
    if not found:
        return None
    # Browsers send "a=1; b=2", with each name once.
    if before[-2:] in ("", "; ") and needle not in after:
        return after.partition(";")[0].strip(' \t"') or None
    return _find_among(header, needle)


def _find_among(header: str, needle: str) -> str | None:
    found, end = "", -1
    for _ in range(_MOST_OF_ONE_NAME):
        at = header.find(needle, end + 1)
        if at < 0:
            return found or None
        begin = max(end, header.rfind(";", end + 1, at)) + 1
        end = header.find(";", at)
        if end < 0:
            end = len(header)
        if not header[begin:at].strip(" \t"):
            value = header[at + len(needle) : end].strip(' \t"')
            if found and value not in ("", found):
                return _AMBIGUOUS
            found = found or value
    return _AMBIGUOUS


class CookieFilter:
    """Filter that removes cookies from a Cookie header, in every spelling that some parser accepts.

    Frameworks parse Cookie headers differently: some decode UTF-8 and strip all Unicode whitespace around a name
    (werkzeug, Django), some treat blanks as separators (``http.cookies``). A part that any of them could read as a
    hidden cookie is removed as a whole.

    Args:
        names: names of the cookies to remove.
    """

    __slots__ = ("_hides", "_names")

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        alternatives = "|".join(map(re.escape, self._names))
        other = f"[^{re.escape(''.join(sorted(_TOKEN)))}=]"
        self._hides = re.compile(rf"(?:\A|{other})(?:{alternatives}){other}*=").search

    def without(self, header: str) -> str:
        """Return the header without these cookies."""
        if not any(name in header for name in self._names):
            return header
        kept = [part for part in header.split(";") if self._hides(part) is None]
        return ";".join(kept).strip("; ")


def sets_cookie(headers: list[tuple[str, str]], name: str) -> bool:
    """Return whether the response itself sets the cookie."""
    needle = name + "="
    return any(
        field.lower() == "set-cookie" and value.lstrip().startswith(needle) for field, value in headers
    )
