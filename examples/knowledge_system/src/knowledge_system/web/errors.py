"""Error handlers: problem documents as JSON for API clients, as a page for browsers."""

from __future__ import annotations

import json
import logging
from urllib.parse import urlencode

from flask import Flask, Response, make_response, redirect, render_template, request
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain.fields import BODY_LIMIT
from knowledge_system.domain.problems import Problem, code_for_status, describe
from knowledge_system.web import current_request, forms
from knowledge_system.web.database_outage import Outage
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.tasks import is_transient

_DRAINED = 67_108_864
"""Maximum bytes of a rejected body that are still read: browsers show the response only after sending it all."""
_DRAIN_SECONDS = 30

_ABSENT = (OperationalError, PoolTimeoutError, BackendUnavailableError)

_log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Register handlers for problems, HTTP exceptions, outages and unexpected exceptions."""
    app.register_error_handler(Problem, answer)
    app.register_error_handler(HTTPException, _from_framework)
    parts = app.extensions["knowledge"]
    outage = Outage(parts.engine, clock=parts.clock)

    def database_unavailable(error: Exception) -> AnyResponse:
        outage.note_failure(error)
        return _unavailable()

    def read_only(error: Exception) -> AnyResponse:
        # psycopg reports a database that is read-only during a failover as an internal error.
        return database_unavailable(error) if is_transient(error) else _unforeseen(error)

    for absent in (OperationalError, PoolTimeoutError):
        app.register_error_handler(absent, database_unavailable)
    app.register_error_handler(InternalError, read_only)
    # The library's circuit breaker has already logged the outage, once.
    app.register_error_handler(BackendUnavailableError, lambda _error: _unavailable())
    app.register_error_handler(Exception, _unforeseen)


def answer(problem: Problem) -> AnyResponse:
    """Return the response for a problem."""
    if (
        problem.code == "sign-in-required"
        and request.method in {"GET", "HEAD"}
        and not current_request.wants_json()
    ):
        return redirect(f"/sign-in?next={_quoted_here()}", 303)
    _find_reader()
    document = describe(problem, language=current_request.language())
    response = (
        _json(document)
        if current_request.wants_json()
        else make_response(
            render_template("error.html", problem=document, wait=problem.wait, place=_place(problem))
        )
    )
    response.status_code = problem.status
    current_request.add_language_fields(response)
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(problem.headers)
    return response


def _place(problem: Problem) -> str:
    """Return the sign-in URL that leads back to the submitted form, whose draft the browser keeps; else empty."""
    signed_out = problem.code == "sign-in-required"
    return f"/sign-in?{urlencode({'next': forms.came_from(elsewhere=False)})}" if signed_out else ""


def _find_reader() -> None:
    """Determine the language; treat the request as anonymous during an outage, or the handler itself would fail."""
    try:
        current_request.language()
    except _ABSENT:
        current_request.stay_anonymous()


def _json(document: dict[str, object]) -> Response:
    document = {**document, "instance": request.path}
    if number := current_request.request_id():
        document["request_id"] = number
    return Response(json.dumps(document, ensure_ascii=False), mimetype="application/problem+json")


def _from_framework(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    if status == 413:
        _drain()
        return answer(Problem("too-large", extra={"limit_bytes": request.max_content_length or BODY_LIMIT}))
    if status < 400:
        return error.get_response()
    headers = {name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}}
    return answer(Problem(code_for_status(status), headers=headers))


def _drain() -> None:
    """Read on for a limited time: closing the connection while the client still sends would lose the response."""
    clock = current_request.services().clock
    left = min(request.content_length or 0, _DRAINED)
    until = clock.monotonic() + _DRAIN_SECONDS
    while left > 0 and clock.monotonic() < until:
        chunk = request.environ["wsgi.input"].read(min(left, 65_536))
        if not chunk:
            return
        left -= len(chunk)


def _unavailable() -> AnyResponse:
    current_request.stay_anonymous()
    return answer(Problem("unavailable", headers={"Retry-After": "5"}))


def _unforeseen(error: Exception) -> AnyResponse:
    # gunicorn detects a truncated or badly chunked body only while it is read, and raises exceptions that
    # Werkzeug does not know. They are matched by module name, as other servers do not have the module.
    if type(error).__module__ == "gunicorn.http.errors":
        return answer(Problem("bad-request", headers={"Connection": "close"}))
    _log.error("unhandled error in %s %s", request.method, request.path, exc_info=error)
    return answer(Problem("internal"))


def _quoted_here() -> str:
    from urllib.parse import quote

    return quote(request.full_path.rstrip("?"), safe="/")
