"""Strict parsing of JSON bodies, and JSON responses that no shared cache may store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import Response, json, request

from knowledge_system.api.preconditions import entity_tag, matches_entity_tag
from knowledge_system.api.route import ApiResponse
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.validation import Field, Tags, Text, parse_json_object, take

_LINES = re.compile(r"[\n\r\t\u2028\u2029]")


def read(body: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Read and validate the fields of the body; an empty body counts as an empty object.

    Raises:
        Problem: ``unsupported-media-type``, ``bad-json``, ``invalid``.
    """
    if not body:
        return take({}, fields)
    if request.mimetype != "application/json":
        raise Problem("unsupported-media-type")
    return exactly(parse_json_object(body), fields)


def exactly(given: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Validate the fields, applying limits to the values as sent.

    Values of HTML forms are trimmed before their length is checked; API clients must comply with the schema.

    Raises:
        Problem: ``invalid``.
    """
    taken = take(given, fields)
    errors = [error for name, field in fields.items() if (error := _beyond(name, field, given.get(name)))]
    if errors:
        raise Problem("invalid", errors=errors)
    return taken


def response_of(reply: ApiResponse) -> Response:
    """Build a private response; 304 if the client's version is current."""
    content = encoded(reply.values)
    response = Response(content, reply.status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(reply.headers)
    if reply.versioned:
        tag = entity_tag(content)
        response.headers.update({"ETag": tag, "Cache-Control": "private, no-cache"})
        asked = request.headers.get("If-None-Match")
        if (
            request.method in {"GET", "HEAD"}
            and asked is not None
            and matches_entity_tag(asked, tag, weak=True)
        ):
            response.status_code = 304
            response.set_data(b"")
            del response.headers["Content-Type"]
    return response


def encoded(values: Mapping[str, Any]) -> bytes:
    """Serialize a representation in canonical form, so that equal values have equal entity tags."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode()


def _beyond(name: str, field: Field, value: Any) -> FieldError | None:
    if isinstance(field, Text) and isinstance(value, str):
        if field.choices is not None:
            return None if value in field.choices else FieldError(name, "choice")
        if len(value) > field.max_length:
            return FieldError(name, "too-long", field.max_length)
        if not field.multiline and _LINES.search(value):
            return FieldError(name, "characters")
    if isinstance(field, Tags) and isinstance(value, list):
        if len(value) > field.max_items:
            return FieldError(name, "too-many", field.max_items)
        found = (_beyond(name, Text(field.max_length), each) for each in value)
        return next((error for error in found if error), None)
    return None
