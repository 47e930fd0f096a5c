"""The route table of the API, shared by Flask and the OpenAPI document."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

from knowledge_system.api import (
    admin,
    attachments,
    auth,
    drafts,
    following,
    knowledge,
    openapi,
    readers,
    reports,
    sessions,
)
from knowledge_system.api.bearer import authenticate
from knowledge_system.api.dispatch import view_of
from knowledge_system.domain import workflow
from knowledge_system.web import api_headers, current_request
from knowledge_system.web.api_headers import HERE, OPEN_GROUP

ROUTES: Final = (
    *auth.routes,
    *sessions.routes,
    *knowledge.routes,
    *attachments.routes,
    *drafts.routes,
    *following.routes,
    *readers.routes,
    *reports.routes,
    *admin.routes,
    openapi.ROUTE,
)


def install(app: Flask) -> None:
    """Register the routes, and authenticate and rate-limit every request below ``/api/``."""
    for route in ROUTES:
        app.add_url_rule(
            route.rule, f"api.{route.name}", view_of(route), methods=[route.method], strict_slashes=True
        )
    groups = {f"api.{route.name}": route.limit_group for route in ROUTES}
    four_eyes = app.extensions["knowledge"].settings.four_eyes
    app.extensions["api_document"] = openapi.document(
        ROUTES, saved_as=workflow.saveable_statuses(four_eyes=four_eyes)
    )

    @app.before_request
    def begin() -> None:
        if request.path.startswith(HERE):
            try:
                authenticate()
            finally:  # a request with a rejected token counts against its address
                current_request.check_limit(groups.get(request.endpoint or "", OPEN_GROUP))

    @app.after_request
    def finish(response: Response) -> Response:
        api_headers.add(response)
        return response
