"""Submitted forms: only UTF-8, only known fields, each once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request

from knowledge_system.problems import Problem
from knowledge_system.validation import Field, form_values, take

__all__ = ["query_values", "read", "safe_next", "submitted"]

_FORM_TYPES = {"application/x-www-form-urlencoded", "multipart/form-data"}


def submitted(*, ignore: tuple[str, ...] = ()) -> dict[str, str]:
    """The raw fields of the form, without the CSRF token.

    Raises:
        Problem: ``unsupported-media-type`` when it is not a form, ``invalid`` or ``bad-request``.
    """
    if request.mimetype not in _FORM_TYPES and request.content_length:
        raise Problem("unsupported-media-type")
    if request.files:
        raise Problem("bad-request")
    return form_values(list(request.form.items(multi=True)), ignore=("csrf_token", *ignore))


def read(fields: Mapping[str, Field], *, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """The checked fields of the form."""
    return take(submitted(ignore=ignore), fields)


def query_values(fields: Mapping[str, Field], *, strict: bool = False) -> dict[str, Any]:
    """The checked parameters of the address; unknown ones are refused only if ``strict``."""
    values = form_values(list(request.args.items(multi=True)))
    return take(values if strict else {name: values[name] for name in values.keys() & fields.keys()}, fields)


def safe_next(path: str) -> str:
    """A path of this site to go on to; anything that could lead elsewhere becomes the start page."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") and len(path) <= 500 else "/"
