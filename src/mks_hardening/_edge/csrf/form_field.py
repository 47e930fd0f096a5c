"""One field of a submitted form, URL-encoded or multipart (RFC 7578)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["FIELD", "declared_length", "form_field", "is_form"]

FIELD: Final = "csrf_token"
_URLENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_LONGEST_TYPE: Final = 1000

_BOUNDARY: Final = re.compile(r'(?i);[ \t]*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))')


def is_form(content_type: str) -> bool:
    """Return whether a body with this ``Content-Type`` is a form."""
    return _kind(content_type) in (_URLENCODED, _MULTIPART)


def declared_length(content_length: str | None, *, limit: int) -> int | None:
    """Return the length of a form that may be read into memory, else ``None``.

    Without a declared length, the end of a body is unknown before it is read (PEP 3333).
    """
    declared = content_length or ""
    if not declared.isascii() or not declared.isdigit() or len(declared) > 12 or int(declared) > limit:
        return None
    return int(declared)


def form_field(body: bytes, content_type: str, name: str) -> str | None:
    """Return the value of a field that occurs exactly once in a form, else ``None``."""
    multipart = _kind(content_type) == _MULTIPART
    values = _multipart(body, content_type[:_LONGEST_TYPE], name) if multipart else _urlencoded(body, name)
    # If the field occurs twice, the application may use the other one.
    return values[0].decode("latin-1") if len(values) == 1 else None


def _kind(content_type: str) -> str:
    return content_type[:_LONGEST_TYPE].partition(";")[0].strip().lower()


def _urlencoded(body: bytes, name: str) -> list[bytes]:
    wanted = name.encode() + b"="
    return [pair[len(wanted) :] for pair in body.split(b"&") if pair.startswith(wanted)]


def _multipart(body: bytes, content_type: str, name: str) -> list[bytes]:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return []
    mark = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1")
    values: list[bytes] = []
    for part in (b"\r\n" + body).split(mark)[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if blank and _field_name(head) == name.encode():
            values.append(content)
    return values


def _field_name(head: bytes) -> bytes | None:
    """Return the field name of a part; ``None`` for files and for ambiguous headers."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    dispositions = [value for name, _, value in lines if name.strip().lower() == b"content-disposition"]
    if len(dispositions) != 1:
        return None
    kind, mark, rest = dispositions[0].partition(b";")
    if kind.strip(b" \t").lower() != b"form-data":
        return None
    parameters = _parameters(mark + rest.rstrip(b" \t"))
    return None if b"filename" in parameters or b"filename*" in parameters else parameters.get(b"name")


def _parameters(text: bytes) -> dict[bytes, bytes]:
    """Return the parameters by lower-case name; empty if the text is malformed or repeats a name."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(text):
        pair = _PARAMETER.match(text, position)
        if pair is None or pair[1].lower() in found:
            return {}
        found[pair[1].lower()] = pair[2] or _ESCAPED.sub(rb"\1", pair[3][1:-1])
        position = pair.end()
    return found


_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7578, 4.2 and RFC 2183, 2: blanks around separators are optional, as are quotes if the value is a token.
_PARAMETER: Final = re.compile(
    rb"[ \t]*;[ \t]*(%b)[ \t]*=[ \t]*(?:(%b)|(\"(?:[^\"\\]|\\.)*\"))[ \t]*(?=;|\Z)" % (_TOKEN, _TOKEN),
    re.DOTALL,
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
