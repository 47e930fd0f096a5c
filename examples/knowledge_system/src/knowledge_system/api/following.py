"""Favourites, subscriptions, and suggestions of tags, titles and sites."""

from __future__ import annotations

from typing import Final

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.services.knowledge import following, tags
from knowledge_system.web import article_changes, current_request


def _items(schema: schemas.Schema) -> schemas.Schema:
    return schemas.thing({"items": schemas.items(schema)})


_NAMED: Final = schemas.thing({"name": schemas.STRING, "articles": schemas.NUMBER})
_NAMES: Final = _items(_NAMED)
_TITLE: Final = schemas.thing({"id": schemas.NUMBER, "title": schemas.STRING})
_KEPT: Final = schemas.thing(
    {"id": schemas.NUMBER, "title": schemas.STRING, "status": schemas.STRING, "updated_at": schemas.MOMENT}
)
_WATCHED: Final = schemas.thing(dict.fromkeys(("kind", "subject", "title"), schemas.STRING))


routes = Routes("/api")


@routes.add("GET", "/tags", {200: _NAMES}, query=fields.TAG_BEGUN)
def tag_names(asked: ApiRequest) -> ApiResponse:
    """Tags of published articles that hold `q` in any spelling, those that begin with it first."""
    with current_request.services().reads() as session:
        return ApiResponse(
            {"items": tags.suggestions(session, current_request.actor(), asked.query["q"])}, versioned=True
        )


@routes.add("GET", "/titles", {200: _items(_TITLE)}, query=fields.TAG_BEGUN)
def titles(asked: ApiRequest) -> ApiResponse:
    """Published articles whose title holds `q` in any spelling, those that begin with it first; at most eight."""
    found = current_request.services().catalogue.suggestions(current_request.actor(), asked.query["q"])
    return ApiResponse({"items": found}, versioned=True)


@routes.add("GET", "/sites", {200: _NAMES})
def site_names(_asked: ApiRequest) -> ApiResponse:
    """Sites of published articles, those of most articles first."""
    counted = current_request.services().catalogue.counts(current_request.actor()).sites
    return ApiResponse({"items": [{"name": n, "articles": c} for n, c in counted.items()]}, versioned=True)


@routes.add("GET", "/favourites", {200: _items(_KEPT)})
def favourites(_asked: ApiRequest) -> ApiResponse:
    """The articles that one keeps, newest first."""
    with current_request.services().reads() as session:
        kept = following.favourites(session, current_request.actor())
    items = [{name: one[name] for name in ("id", "title", "status", "updated_at")} for one in kept]
    return ApiResponse({"items": items}, versioned=True)


@routes.add("PUT", "/favourites/{article_id}", {204: None}, refusals=(404, 422))
def favouring(asked: ApiRequest) -> ApiResponse:
    """Keep an article; harmless when it is kept already."""
    article_changes.favour(asked.path["article_id"], on=True)
    return ApiResponse({}, 204)


@routes.add("DELETE", "/favourites/{article_id}", {204: None}, limit="api_write")
def forgetting(asked: ApiRequest) -> ApiResponse:
    """Keep an article no longer; harmless when it was not kept."""
    article_changes.favour(asked.path["article_id"], on=False)
    return ApiResponse({}, 204)


@routes.add("GET", "/watches", {200: _items(_WATCHED)})
def watches(_asked: ApiRequest) -> ApiResponse:
    """What one watches, newest first."""
    with current_request.services().reads() as session:
        return ApiResponse({"items": following.watches(session, current_request.actor())}, versioned=True)


@routes.add("PUT", "/watches", {204: None}, body=fields.WATCH, refusals=(404,))
def watching(asked: ApiRequest) -> ApiResponse:
    """Watch an article by its number, a tag or a site by its name; harmless when it is watched already."""
    article_changes.watch(asked.values["kind"], asked.values["subject"], on=True)
    return ApiResponse({}, 204)


@routes.add("DELETE", "/watches", {204: None}, limit="api_write", query=fields.WATCH)
def ignoring(asked: ApiRequest) -> ApiResponse:
    """Watch something no longer; harmless when it was not watched."""
    article_changes.watch(asked.query["kind"], asked.query["subject"], on=False)
    return ApiResponse({}, 204)
