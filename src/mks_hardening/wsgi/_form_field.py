"""One field of a submitted form, read without taking the body away from the application."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["read_form_field"]

_BOUNDARY: Final = re.compile(r'(?i);[ \t]*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))')


def read_form_field(environ: WSGIEnvironment, name: str, *, limit: int) -> str | None:
    """The value of a field that occurs exactly once in a form of at most ``limit`` bytes, else ``None``.

    The body is put back as it was. Bodies that are no forms, or without a declared length, are not touched.
    """
    content_type = environ.get("CONTENT_TYPE", "")[:1000]
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return None
    body = _buffered(environ, limit)
    if body is None:
        return None
    values = _multipart(body, content_type, name) if kind.startswith("multipart") else _urlencoded(body, name)
    return values[0].decode("latin-1") if len(values) == 1 else None


def _buffered(environ: WSGIEnvironment, limit: int) -> bytes | None:
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
    wanted = f'; name="{name}"'.encode()
    values: list[bytes] = []
    for part in (b"\r\n" + body).split(mark)[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        disposition = next(
            (line for line in head.split(b"\r\n") if line.lower().startswith(_DISPOSITION)), b""
        )
        if blank and wanted in disposition and b"filename" not in disposition:
            values.append(content)
    return values


_DISPOSITION: Final = b"content-disposition: form-data"
