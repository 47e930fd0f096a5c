"""Entity tags and conditional requests (RFC 9110, 8.8.3 and 13.1)."""

from __future__ import annotations

import hashlib
import re

ANY = "*"
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
# Empty list elements are ignored (RFC 9110, 5.6.1.2).
_LIST = re.compile(rf"[\s,]*{_TAG.pattern}(?:\s*,[\s,]*{_TAG.pattern})*[\s,]*")


def entity_tag(content: bytes) -> str:
    """Return the strong entity tag of a representation."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def matches_entity_tag(field: str, tag: str, *, weak: bool = False) -> bool:
    """Whether a header field contains the tag; weak tags match only if ``weak`` (``If-None-Match``).

    A malformed list matches nothing: the change is then refused rather than made by mistake.
    """
    if field.strip() == ANY:
        return True
    if not _LIST.fullmatch(field):
        return False
    found = _TAG.findall(field)
    return tag in ([each.removeprefix("W/") for each in found] if weak else found)
