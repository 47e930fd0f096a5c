"""Entity tags: which version an answer is, and which one a change was made on (RFC 9110, 8.8.3 and 13.1)."""

from __future__ import annotations

import hashlib
import re

__all__ = ["ANY", "entity_tag", "named"]

ANY = "*"
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
# Empty elements are passed over (RFC 9110, 5.6.1.2).
_LIST = re.compile(rf"[\s,]*{_TAG.pattern}(?:\s*,[\s,]*{_TAG.pattern})*[\s,]*")


def entity_tag(content: bytes) -> str:
    """The strong tag of a representation."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def named(field: str, tag: str, *, weak: bool = False) -> bool:
    """Whether the field names the tag; weak tags count only if ``weak`` (``If-None-Match``).

    What is no list of tags names none: a change is then refused, never made by mistake.
    """
    if field.strip() == ANY:
        return True
    if not _LIST.fullmatch(field):
        return False
    found = _TAG.findall(field)
    return tag in ([each.removeprefix("W/") for each in found] if weak else found)
