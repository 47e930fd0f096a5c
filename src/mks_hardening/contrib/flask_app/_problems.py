"""Errors as problem documents (RFC 9457), for clients that do not ask for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, request
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable, TooManyRequests

from mks_hardening._core.web.environ_keys import REQUEST_ID_KEY
from mks_hardening._core.web.problem_details import PROBLEM_TYPE, prefers_text, problem_document
from mks_hardening.contrib._limited_views import OUTAGES_AND_LIMITS, problem_of
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from werkzeug.wrappers import Response

__all__ = ["install"]


def install(app: Flask) -> None:
    """Register the error handlers, except those that the application already has."""
    handlers: dict[type[Exception], Any] = {
        HTTPException: _answer,
        **dict.fromkeys(OUTAGES_AND_LIMITS, _outage_or_limit),
    }
    # Flask has no public API to query the registered handlers.
    taken = app.error_handler_spec[None][None]
    for kind, handler in handlers.items():
        if kind not in taken:
            app.register_error_handler(kind, handler)


def _answer(error: HTTPException) -> ResponseReturnValue:
    # Flask prefers the most specific class, which would make ours win over the application's handler for Exception.
    theirs = current_app.error_handler_spec[None][None].get(Exception)
    if theirs is not None:
        answer: ResponseReturnValue = current_app.ensure_sync(theirs)(error)
        return answer
    return _as_problem(error)


def _as_problem(error: HTTPException) -> HTTPException | Response:
    cause = getattr(error, "original_exception", None)
    if isinstance(error, InternalServerError) and isinstance(cause, BackendUnavailableError):
        return _outage_or_limit(cause)
    # Werkzeug's response is kept for a custom response (`abort(response)`), a redirect, or a browser's page.
    if (
        error.response is not None
        or (error.code or 0) < 400
        or prefers_text(request.headers.get("Accept", ""))
    ):
        return error
    response = error.get_response(request.environ)
    members = {"request_id": request.environ[REQUEST_ID_KEY]} if REQUEST_ID_KEY in request.environ else {}
    # Keeps the header fields of the error: Allow, Retry-After, WWW-Authenticate.
    response.set_data(problem_document(error.code or 500, error.description or "", **members))
    response.content_type = PROBLEM_TYPE
    response.headers.setdefault("Cache-Control", "no-store")
    # The response depends on Accept, which caches must take into account (RFC 9110, 12.5.5).
    response.vary.add("Accept")
    return response


def _outage_or_limit(error: Any) -> HTTPException | Response:
    status, detail, fields = problem_of(request.environ, error)
    refusal = _as_problem(TooManyRequests(detail) if status == 429 else ServiceUnavailable(detail))
    response = refusal.get_response(request.environ) if isinstance(refusal, HTTPException) else refusal
    for name, value in fields:
        response.headers.setdefault(name, value)
    return response
