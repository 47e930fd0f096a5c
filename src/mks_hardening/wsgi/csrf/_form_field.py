"""Reads one field of a submitted form and leaves the body for the application."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["FIELD", "read_form_field"]

FIELD: Final = "csrf_token"

_BOUNDARY: Final = re.compile(r'(?i);[ \t]*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))')


def read_form_field(environ: WSGIEnvironment, name: str, *, limit: int) -> str | None:
    """Return the value of a field that occurs exactly once in a form of at most ``limit`` bytes, else ``None``.

    The body is made available again for the application. Bodies that are not forms, or have no declared length, are
    not read.
    """
    content_type = environ.get("CONTENT_TYPE", "")[:1000]
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return None
    body = _buffered(environ, limit)
    if body is None:
        return None
    values = _multipart(body, content_type, name) if kind.startswith("multipart") else _urlencoded(body, name)
    # If the field occurs twice, the application may use the other one.
    return values[0].decode("latin-1") if len(values) == 1 else None


def _buffered(environ: WSGIEnvironment, limit: int) -> bytes | None:
    # Without a declared length the end of the body is unknown before it is read (PEP 3333).
    declared = environ.get("CONTENT_LENGTH") or ""
    if not declared.isascii() or not declared.isdigit() or len(declared) > 12 or int(declared) > limit:
        return None
    left = int(declared)
    chunks: list[bytes] = []
    source = environ["wsgi.input"]
    while left > 0 and (chunk := source.read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    body = b"".join(chunks)
    # Lets the application read the same body again.
    environ["wsgi.input"] = io.BytesIO(body)
    return body


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
