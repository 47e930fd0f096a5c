"""JSON in and out: strict bodies, personal answers that no cache keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, json, request

from knowledge_system.problems import Problem
from knowledge_system.validation import Field, parse_json_object, take

__all__ = ["answer", "read"]


def read(fields: Mapping[str, Field]) -> dict[str, Any]:
    """The checked fields of the body; an empty body counts as an empty object.

    Raises:
        Problem: ``unsupported-media-type``, ``bad-json``, ``invalid``, ``too-large``.
    """
    body = request.get_data(cache=False)
    if not body:
        return take({}, fields)
    if request.mimetype != "application/json":
        raise Problem("unsupported-media-type")
    return take(parse_json_object(body), fields)


def answer(
    values: Mapping[str, Any], status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer for this person only."""
    response = Response(json.dumps(values, ensure_ascii=False), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(headers or {})
    return response
