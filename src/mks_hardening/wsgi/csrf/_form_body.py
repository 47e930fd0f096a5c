"""Reads one field of a submitted form and leaves the body for the application."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mks_hardening._edge.csrf.form_field import declared_length, form_field, is_form

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["read_form_field"]


def read_form_field(environ: WSGIEnvironment, name: str, *, limit: int) -> str | None:
    """Return the value of a field that occurs exactly once in a form of at most ``limit`` bytes, else ``None``.

    The body is made available again for the application. Bodies that are not forms, or have no declared length, are
    not read.
    """
    content_type = environ.get("CONTENT_TYPE", "")
    length = declared_length(environ.get("CONTENT_LENGTH"), limit=limit)
    if length is None or not is_form(content_type):
        return None
    chunks: list[bytes] = []
    source = environ["wsgi.input"]
    while length > 0 and (chunk := source.read(length)):
        chunks.append(chunk)
        length -= len(chunk)
    body = b"".join(chunks)
    environ["wsgi.input"] = io.BytesIO(body)
    return form_field(body, content_type, name)
