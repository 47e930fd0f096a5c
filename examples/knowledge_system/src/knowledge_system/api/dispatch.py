"""Turns a route into a Flask view: authorization, validation, idempotency and the response."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from flask import Response, request

from knowledge_system.api.body import encoded, exactly, read, response_of
from knowledge_system.api.route import ApiRequest, ApiResponse, Route
from knowledge_system.domain import permissions
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.validation import Field, form_values
from knowledge_system.web import article_changes, current_request
from knowledge_system.web.files.uploads import digest, received

KEY_FIELD: Final = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def view_of(route: Route) -> Callable[..., Response]:
    """Return the Flask view of a route."""

    def view(**parameters: str) -> Response:
        if route.who != "anybody":
            actor = current_request.actor()
            if route.who == "administrators" and not permissions.may_administer(actor):
                raise Problem("forbidden")
        path = _path(parameters, route.parameters)
        query = exactly(form_values(request.query_string), route.query)
        body = b"" if route.body is None else _whole_body()
        values = {} if route.body is None else read(body, route.body)
        if_match, if_none = (request.headers.get(name) for name in ("If-Match", "If-None-Match"))
        if route.conditional and if_match is None and not values.get("revision"):
            raise Problem("precondition-required")
        asked = ApiRequest(path, query, values, if_match, if_none)
        key = request.headers.get(KEY_FIELD) if route.repeatable else None
        answer = route.view(asked) if key is None else _once(route, asked, key, body)
        return response_of(answer) if isinstance(answer, ApiResponse) else answer

    return view


def _whole_body() -> bytes:
    """Read the body, or raise 413: Werkzeug silently truncates a body without a length at the limit."""
    body = request.get_data(cache=False)
    if request.content_length is None and len(body) == request.max_content_length:
        request.stream.read(1)  # raises if there is more
    return body


def _path(parameters: Mapping[str, str], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Validate the path parameters; 404 if one is invalid or not in its canonical spelling."""
    taken: dict[str, Any] = {}
    for name, field in fields.items():
        taken[name], error, _ = field.read(parameters[name])
        if error or str(taken[name]) != parameters[name]:
            raise Problem("not-found")
    return taken


def _once(route: Route, asked: ApiRequest, key: str, body: bytes) -> ApiResponse:
    """Run the operation once per key; return the stored response if it has already run."""
    if not _KEY.fullmatch(key):
        raise Problem("invalid", errors=[FieldError(KEY_FIELD, "pattern")])
    named = encoded({"method": route.method, "path": request.path, "query": dict(asked.query)})
    content = digest(received()).encode() if route.takes_file else body
    fingerprint = hashlib.sha256(named + b"\0" + content).hexdigest()

    def work() -> str:
        answer = cast(
            "ApiResponse", route.view(asked)
        )  # a repeatable view returns values, which can be stored
        return json.dumps([answer.status, dict(answer.headers), dict(answer.values), answer.versioned])

    kept, again = article_changes.once(key, fingerprint, work)
    status, headers, values, versioned = json.loads(kept)
    if again:
        headers["Idempotency-Replayed"] = "true"
    return ApiResponse(values, status, headers, versioned)
