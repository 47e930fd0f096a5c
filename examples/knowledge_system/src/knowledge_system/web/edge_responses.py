"""Responses of this application for requests that the library's wrappers reject before it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask

from knowledge_system.domain.problems import Problem, code_for_status
from knowledge_system.web import api_headers, current_request
from knowledge_system.web.errors import answer
from mks_hardening.wsgi import SESSION_KEY, CustomResponse, Refusal

_WRITTEN_OUTSIDE = {"Content-Type", "Content-Length", "Cache-Control", "Retry-After"}
_ENDED = {"idle": "session-idle", "absolute": "session-absolute", "revoked": "session-revoked"}


def create_rejection_handler(app: Flask) -> Callable[[dict[str, Any], Refusal], CustomResponse]:
    """Create the ``on_refusal`` callback: pages and problem documents of ``app``, in the client's language."""

    def worded(environ: dict[str, Any], refusal: Refusal) -> CustomResponse:
        ended = _ENDED.get(refusal.rule) if refusal.wrapper == "session" else None
        code = ended or ("csrf" if refusal.wrapper == "csrf" else code_for_status(refusal.status))
        extra = {"reason": refusal.rule} if ended else {}
        with app.request_context(environ):
            if SESSION_KEY not in environ:  # rejected by an outer wrapper, perhaps during an outage
                current_request.stay_anonymous()
            waiting = {name: value for name, value in refusal.headers if name == "Retry-After"}
            response = answer(Problem(code, extra=extra, headers=waiting))
            api_headers.add(response)
        kept = [(name, value) for name, value in response.headers if name not in _WRITTEN_OUTSIDE]
        return CustomResponse(
            body=response.get_data(), content_type=response.content_type or "text/html", headers=kept
        )

    return worded
