"""``/api/drafts``: what the editor holds and nobody has saved, for its writer only."""

from __future__ import annotations

from typing import Final

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.knowledge import drafts
from knowledge_system.web import article_changes, current_request

_DRAFT: Final = schemas.thing(
    {
        **{name: schemas.STRING for name in fields.DRAFT if name != "revision"},
        "revision": schemas.NUMBER,
        "saved_at": schemas.MOMENT,
    }
)


routes = Routes("/api/drafts/{form}")


@routes.add("GET", "", {200: _DRAFT}, limit="api_poll", refusals=(404,))
def reading(asked: ApiRequest) -> ApiResponse:
    """The draft of an editor: `article-12`, or `article-new`."""
    with current_request.services().reads() as session:
        found = drafts.load(session, current_request.actor(), asked.path["form"])
    if found is None:
        raise Problem("not-found")
    return ApiResponse({**found.values, "revision": found.revision, "saved_at": found.saved_at.isoformat()})


@routes.add("PUT", "", {204: None}, limit="api_poll", body=fields.DRAFT)
def storing(asked: ApiRequest) -> ApiResponse:
    """Keep what was typed for a month, in the place of what was kept before."""
    values = {name: value for name, value in asked.values.items() if name != "revision"}
    article_changes.store_draft(asked.path["form"], asked.values["revision"], values)
    return ApiResponse({}, 204)


@routes.add("DELETE", "", {204: None}, limit="api_poll")
def discarding(asked: ApiRequest) -> ApiResponse:
    """Remove a draft; harmless if there is none."""
    article_changes.discard_draft(asked.path["form"])
    return ApiResponse({}, 204)
