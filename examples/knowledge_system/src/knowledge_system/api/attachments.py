"""``/api/knowledge/{article_id}/attachments``: the attachments of an article."""

from __future__ import annotations

from typing import Final

from flask import Response

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Route
from knowledge_system.domain.problems import Problem
from knowledge_system.services.attachments import article_attachments
from knowledge_system.web import article_changes, current_request
from knowledge_system.web.files.downloads import sent
from knowledge_system.web.files.uploads import received

_ATTACHMENT: Final = schemas.thing(
    {
        "id": schemas.NUMBER,
        "name": schemas.STRING,
        "content_type": schemas.STRING,
        "size": schemas.NUMBER,
        "sha256": schemas.STRING,
        "width": schemas.NUMBER,
        "height": schemas.NUMBER,
        "shown": schemas.FLAG,
        "created_at": schemas.MOMENT,
        "url": schemas.STRING,
    }
)


def listing(asked: ApiRequest) -> ApiResponse:
    """The files of an article, oldest first; `shown` is false until the next version is published."""
    with current_request.services().sessions() as session:
        return ApiResponse(
            {"items": article_attachments.listed(session, current_request.actor(), asked.path["article_id"])},
            versioned=True,
        )


def adding(asked: ApiRequest) -> ApiResponse:
    """Attach a file: JPEG, PNG, WebP, GIF, PDF, DXF or DWG, recognized by content."""
    article_id = asked.path["article_id"]
    [made] = article_changes.attach(article_id, received)
    return ApiResponse(made, 201, {"Location": f"/api/knowledge/{article_id}/attachments/{made['id']}"})


def reading(asked: ApiRequest) -> Response:
    """The file itself."""
    with current_request.services().sessions() as session:
        found = article_attachments.find(session, current_request.actor(), asked.path["attachment_id"])
    if found.article_id != asked.path["article_id"]:
        raise Problem("not-found")
    return sent(found)


def removing(asked: ApiRequest) -> ApiResponse:
    """Remove a file from an article."""
    article_changes.detach(**asked.path)
    return ApiResponse({}, 204)


_PATH: Final = "/api/knowledge/{article_id}/attachments"

ROUTES: Final = (
    Route("GET", _PATH, listing, {200: schemas.thing({"items": schemas.items(_ATTACHMENT)})}),
    Route("POST", _PATH, adding, {201: _ATTACHMENT}, limit="file_upload", repeatable=True, takes_file=True),
    Route(
        "GET", f"{_PATH}/{{attachment_id}}", reading, {200: schemas.FILE, 206: schemas.FILE}, gives_file=True
    ),
    Route("DELETE", f"{_PATH}/{{attachment_id}}", removing, {204: None}),
)
