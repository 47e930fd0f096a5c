"""Writes the audit entries for sign-in events before the response is sent."""

from __future__ import annotations

from flask import Flask
from werkzeug.wrappers import Response

from knowledge_system.web import current_request


def install(app: Flask) -> None:
    """Collect entries during each request; must be installed before all other request hooks."""
    trail = app.extensions["knowledge"].trail

    @app.before_request
    def begin() -> None:
        trail.begin()

    @app.after_request
    def end(response: Response) -> Response:
        trail.end(client=current_request.address())
        return response
