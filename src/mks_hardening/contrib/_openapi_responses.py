"""Responses of our dependencies in FastAPI's OpenAPI document.

FastAPI takes responses from routes only, not from dependencies. It does take security schemes from them, so that
each dependency declares one per status code; they are replaced by responses in the finished document.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeAlias

from mks_hardening._core.web.problem_details import PROBLEM_TYPE

__all__ = ["marker_of", "with_problem_responses"]

Document: TypeAlias = dict[str, Any]
"""A part of an OpenAPI document."""

_PREFIX: Final = "mks_hardening.response."
_DESCRIPTIONS: Final = {
    401: "Nobody is signed in, or the session has ended",
    403: "The user must confirm the sign-in first",
    429: "Too many requests",
    503: "A backend is unavailable",
}
_SCHEMA: Final = {
    "type": "object",
    "title": "Problem",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def marker_of(status: int) -> str:
    """Return the name of the security scheme that stands for a response."""
    return f"{_PREFIX}{status}"


def with_problem_responses(openapi: Callable[[], Document]) -> Callable[[], Document]:
    """Return the method ``openapi`` of a FastAPI application, with the responses in its document."""

    @wraps(openapi)
    def documented() -> Document:
        document = openapi()
        components: Document = document.get("components", {})
        schemes: Document = components.get("securitySchemes", {})
        for name in [name for name in schemes if name.startswith(_PREFIX)]:
            del schemes[name]
        if not schemes:
            components.pop("securitySchemes", None)
        paths: dict[str, Document] = document.get("paths", {})
        for operations in paths.values():
            for operation in operations.values():
                if "security" in operation:
                    _replace_markers(operation)
        return document

    return documented


def _replace_markers(operation: Document) -> None:
    kept: list[Document] = []
    for requirement in operation["security"]:
        [name] = requirement
        if not name.startswith(_PREFIX):
            kept.append(requirement)
            continue
        status = int(name.removeprefix(_PREFIX))
        response: Document = {
            "description": _DESCRIPTIONS[status],
            "content": {PROBLEM_TYPE: {"schema": _SCHEMA}},
        }
        if status in (429, 503):
            response["headers"] = {
                "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}
            }
        operation["responses"].setdefault(str(status), response)
    if kept:
        operation["security"] = kept
    else:
        del operation["security"]
