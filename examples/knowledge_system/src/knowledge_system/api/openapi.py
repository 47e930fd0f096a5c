"""The OpenAPI 3.1 document, generated from the route table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from flask import current_app

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Route
from knowledge_system.domain import fields
from knowledge_system.domain.files.file_types import KINDS

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_STREAM: Final = "text/event-stream"
_FORM: Final = "multipart/form-data"
_LIMITS: Final = ("RateLimit", "RateLimit-Policy")
_NEEDS_BODY: Final = {"POST", "PUT"}


def read(_asked: ApiRequest) -> ApiResponse:
    """This document."""
    return ApiResponse(current_app.extensions["api_document"], versioned=True)


ROUTE: Final = Route("GET", "/api/openapi.json", read, {200: {"type": "object"}}, who="anybody")


def document(routes: Iterable[Route], *, saved_as: Sequence[str]) -> dict[str, Any]:
    """Generate the document.

    Args:
        routes: the route table.
        saved_as: statuses in which an article may be saved; all others are reached through workflow steps only.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
        if route.body is not None and route.body.get("status") is fields.ARTICLE["status"]:
            properties = operation["requestBody"]["content"][_JSON]["schema"]["properties"]
            properties["status"]["enum"] = list(saved_as)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "建設土木ナレッジシステム",
            "version": "1",
            "description": "Browsers sign in with a cookie, programs with bearer tokens; rights are the same.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": schemas.PROBLEM},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-mks-session"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.path.split("/")[2].partition(".")[0]],
        "parameters": [*_parameters(route)],
        "responses": {
            **{str(status): _answer(route, status) for status in route.answers},
            **{str(status): _refusal(status) for status in _refusals(route)},
        },
        "security": [] if route.who == "anybody" else [{"bearer": []}, {"session": []}],
    }
    if route.takes_file:
        form = schemas.thing({"file": schemas.FILE})
        operation["requestBody"] = {"required": True, "content": {_FORM: {"schema": form}}}
    if route.body is not None:
        schema = {**schemas.body(route.body), **route.more}
        operation["requestBody"] = {
            "required": bool(schema["required"]),
            "content": {_JSON: {"schema": schema}},
        }
    return operation


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name, field in route.parameters.items():
        yield {"name": name, "in": "path", "required": True, "schema": schemas.field(field)}
    for name, field in route.query.items():
        needed = field.default is None
        yield {"name": name, "in": "query", "required": needed, "schema": schemas.field(field)}
    if route.conditional:
        in_body = route.body is not None and "revision" in route.body
        yield {
            "name": "If-Match",
            "in": "header",
            "required": not in_body,
            "description": "The ETag of the version that was read, a list of ETags, or `*`"
            + ("; not required if `revision` is in the body." if in_body else "."),
            "schema": schemas.STRING,
        }
    if route.repeatable:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "For 24 hours, a repeated key gets the first response; it is not executed again.",
            "schema": {"type": "string", "pattern": r"^[!-~]([ -~]{0,253}[!-~])?$", "maxLength": 255},
        }


def _answer(route: Route, status: int) -> dict[str, Any]:
    schema = route.answers[status]
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase, "headers": _fields(*_LIMITS)}
    if status == 201 and "Location" in _response_headers(route):
        answer["headers"] |= _fields("Location")
    if route.gives_file and schema is not None:
        answer["headers"] |= _fields("Content-Disposition")
        answer["content"] = {kind: {"schema": schema} for kind in KINDS}
        return answer
    if schema is not None:
        answer["content"] = {_JSON: {"schema": schema}}
        if route.name in {"reports.status", "reports.following"} and status == 200:
            answer["content"][_STREAM] = {"schema": schemas.STRING}
    return answer


def _response_headers(route: Route) -> tuple[str, ...]:
    return ("Location",) if route.name in {"knowledge.creating", "attachments.adding"} else ()


def _refusals(route: Route) -> list[int]:
    """Return the possible error statuses, derived from the route; none is left to ``default``."""
    found = {400, 401, 422, 429, 503, *route.refusals}
    if route.method in _NEEDS_BODY | {"DELETE"} or route.who == "administrators":
        found |= {403}
    if route.body is not None or route.takes_file:
        found |= {413, 415}
    if route.takes_file:
        found |= {507}
    if route.gives_file:
        found |= {416}
    if route.parameters:
        found |= {404}
    if route.conditional:
        found |= {412, 428}
    if route.repeatable:
        found |= {409}
    return sorted(found)


def _refusal(status: int) -> dict[str, Any]:
    headers = _fields(*_LIMITS) | (_fields("WWW-Authenticate") if status == 401 else {})
    return {
        "description": HTTPStatus(status).phrase,
        "headers": headers,
        "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _fields(*names: str) -> dict[str, Any]:
    return {name: {"required": True, "schema": schemas.STRING} for name in names}
