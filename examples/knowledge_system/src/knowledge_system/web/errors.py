"""Every refusal and every failure as a problem document: JSON for programs, a page for people."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flask import Response, make_response, redirect, render_template, request
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from knowledge_system.domain.fields import BODY_LIMIT
from knowledge_system.domain.problems import Problem, code_for_status, describe
from knowledge_system.web import current_request, forms
from knowledge_system.web.outage import Outage
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.wrappers import Response as AnyResponse

__all__ = ["install"]

_DRAINED = 67_108_864
"""Bytes of a refused body that are read all the same: a browser first sends everything, then shows the answer."""
_DRAIN_SECONDS = 30

_ABSENT = (OperationalError, PoolTimeoutError, BackendUnavailableError)

_log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Handle problems, refusals of the framework, absent servers and everything unforeseen."""
    app.register_error_handler(Problem, answer)
    app.register_error_handler(HTTPException, _from_framework)
    parts = app.extensions["knowledge"]
    outage = Outage(parts.engine, clock=parts.clock)

    def database_away(error: Exception) -> AnyResponse:
        outage.met(error)
        return _unavailable()

    for absent in (OperationalError, PoolTimeoutError):
        app.register_error_handler(absent, database_away)
    # The breaker of the library has told already, once.
    app.register_error_handler(BackendUnavailableError, lambda _error: _unavailable())
    app.register_error_handler(Exception, _unforeseen)


def answer(problem: Problem) -> AnyResponse:
    """The answer for a problem."""
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
    current_request.tell_language(response)
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(problem.headers)
    return response


def _place(problem: Problem) -> str:
    """Where to sign in and be back at the form that was sent, whose draft the browser has kept; else nowhere."""
    signed_out = problem.code == "sign-in-required"
    return f"/sign-in?{urlencode({'next': forms.came_from(elsewhere=False)})}" if signed_out else ""


def _find_reader() -> None:
    """Who reads the answer; nobody where that cannot be found out, or a refusal would end as a second error."""
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
    """Read on for a bounded while: closing on a client that still sends would cost it the answer."""
    clock = current_request.parts().clock
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
    # gunicorn finds out while the body is read that it is cut or no chunks; its errors are of no class of Python's
    # that Werkzeug would know. Another server does not have the module, so it is known by its name.
    if type(error).__module__ == "gunicorn.http.errors":
        return answer(Problem("bad-request", headers={"Connection": "close"}))
    _log.error("unhandled error in %s %s", request.method, request.path, exc_info=error)
    return answer(Problem("internal"))


def _quoted_here() -> str:
    from urllib.parse import quote

    return quote(request.full_path.rstrip("?"), safe="/")
