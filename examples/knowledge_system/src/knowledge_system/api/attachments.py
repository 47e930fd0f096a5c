"""``/api/knowledge/{article_id}/attachments``: the attachments of an article."""

from __future__ import annotations

from typing import Final

from flask import Response

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain.problems import Problem
from knowledge_system.services.attachments import article_attachments
from knowledge_system.web import article_changes, current_request
from knowledge_system.web.files.downloads import sent
from knowledge_system.web.files.uploads import received

_ATTACHMENT: Final = schemas.thing(
    {
        **dict.fromkeys(("id", "size", "width", "height"), schemas.NUMBER),
        **dict.fromkeys(("name", "content_type", "sha256", "url"), schemas.STRING),
        "shown": schemas.FLAG,
        "created_at": schemas.MOMENT,
    }
)
_FILE: Final = "/{attachment_id}"

routes = Routes("/api/knowledge/{article_id}/attachments")


@routes.add("GET", "", {200: schemas.thing({"items": schemas.items(_ATTACHMENT)})})
def listing(asked: ApiRequest) -> ApiResponse:
    """The files of an article, oldest first; `shown` is false until the next version is published."""
    with current_request.services().reads() as session:
        return ApiResponse(
            {"items": article_attachments.listed(session, current_request.actor(), asked.path["article_id"])},
            versioned=True,
        )


@routes.add("POST", "", {201: _ATTACHMENT}, limit="file_upload", repeatable=True, takes_file=True)
def adding(asked: ApiRequest) -> ApiResponse:
    """Attach a file: JPEG, PNG, WebP, GIF, PDF, DXF or DWG, recognized by content."""
    article_id = asked.path["article_id"]
    [made] = article_changes.attach(article_id, received)
    return ApiResponse(made, 201, {"Location": f"/api/knowledge/{article_id}/attachments/{made['id']}"})


@routes.add("GET", _FILE, {200: schemas.FILE, 206: schemas.FILE}, gives_file=True)
def reading(asked: ApiRequest) -> Response:
    """The file itself."""
    with current_request.services().reads() as session:
        found = article_attachments.find(session, current_request.actor(), asked.path["attachment_id"])
    if found.article_id != asked.path["article_id"]:
        raise Problem("not-found")
    return sent(found)


@routes.add("DELETE", _FILE, {204: None})
def removing(asked: ApiRequest) -> ApiResponse:
    """Remove a file from an article."""
    article_changes.detach(**asked.path)
    return ApiResponse({}, 204)
