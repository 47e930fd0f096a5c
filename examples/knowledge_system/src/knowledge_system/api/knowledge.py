"""``/api/knowledge``: the articles."""

from __future__ import annotations

from typing import Any, Final

from knowledge_system.api import schemas
from knowledge_system.api.body import encoded
from knowledge_system.api.preconditions import ANY, entity_tag, matches_entity_tag
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.domain.workflow import STEPS
from knowledge_system.services.knowledge import article_queries
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.web import article_changes, current_request

_SUMMARY: Final = {
    **dict.fromkeys(("id", "revision"), schemas.NUMBER),
    **dict.fromkeys(("title", "summary", "category", "site", "status"), schemas.STRING),
    **dict.fromkeys(("author", "author_username"), schemas.STRING),
    "tags": schemas.items(schemas.STRING),
    "updated_at": schemas.MOMENT,
}
_REVISION: Final = {
    **dict.fromkeys(("editor", "status"), schemas.STRING),
    "revision": schemas.NUMBER,
    "saved_at": schemas.MOMENT,
}
_ARTICLE: Final = {
    **_SUMMARY,
    "body": schemas.STRING,
    "created_at": schemas.MOMENT,
    "shown_revision": schemas.NUMBER,
    "confirmed_at": schemas.nullable(schemas.MOMENT),
    "next": schemas.nullable(
        schemas.thing({"revision": schemas.NUMBER, "since": schemas.NUMBER, "status": schemas.STRING})
    ),
    "editable": schemas.FLAG,
    "history": schemas.items(schemas.thing(_REVISION)),
}
_PIECES: Final = schemas.items(schemas.thing({"text": schemas.STRING, "found": schemas.FLAG}))
_NOT_SEARCHED: Final[dict[str, list[Any]]] = {
    "title_pieces": [],
    "summary_pieces": [],
    "excerpt_pieces": [],
    "files": [],
}
"""Highlighted matches and matching attachments; empty lists if there is no search."""
_FILE: Final = {
    **dict.fromkeys(("id", "page"), schemas.NUMBER),
    **dict.fromkeys(("name_pieces", "excerpt_pieces"), _PIECES),
}
_LISTED: Final = {
    **_SUMMARY,
    "comment_count": schemas.NUMBER,
    **dict.fromkeys(_NOT_SEARCHED, _PIECES),
    "files": schemas.items(schemas.thing(_FILE)),
}
_COMMENT: Final = {
    **dict.fromkeys(("author", "body"), schemas.STRING),
    "id": schemas.NUMBER,
    "created_at": schemas.MOMENT,
}
_CURSOR: Final = schemas.nullable(schemas.STRING)


_LIST_ANSWER = schemas.thing(
    {"items": schemas.items(schemas.thing(_LISTED)), "next": _CURSOR, "total": schemas.NUMBER}
)
_ONE = schemas.thing(_ARTICLE)
_COMMENTS = schemas.thing({"items": schemas.items(schemas.thing(_COMMENT)), "next": _CURSOR})

_WHY: Final[schemas.Schema] = {
    "anyOf": [
        {"properties": {"step": {"enum": [name for name, step in STEPS.items() if not step.comment]}}},
        {
            "properties": {
                "step": {"enum": [name for name, step in STEPS.items() if step.comment]},
                "comment": schemas.field(fields.COMMENT["body"]),
            },
            "required": ["comment"],
        },
    ]
}
"""Returning a version for changes and retiring an article need a comment."""
_READ: Final = "/{article_id}"

routes = Routes("/api/knowledge")


@routes.add("GET", "", {200: _LIST_ANSWER}, query=fields.LIST)
def listing(asked: ApiRequest) -> ApiResponse:
    """One page of articles; `next` is the value of `after` for the next page, `total` counts to 10,000."""
    query = asked.query
    if query["q"]:
        current_request.check_limit("search")
    wanted = ArticleFilter(*(query[name] for name in ArticleFilter._fields))
    page, from_cache = current_request.services().catalogue.page(
        current_request.actor(), wanted, query=query["q"], sort=query["sort"], after=query["after"] or None
    )
    items = [_select({**_NOT_SEARCHED, **item}, _LISTED) for item in page["items"]]
    values = {"items": items, "next": page["next"], "total": page["total"]}
    return ApiResponse(values, headers={"X-Cache": "hit" if from_cache else "miss"}, versioned=True)


@routes.add("POST", "", {201: _ONE}, body=fields.ARTICLE, refusals=(403,), repeatable=True)
def creating(asked: ApiRequest) -> ApiResponse:
    """A new article."""
    new = article_changes.create_and_read(dict(asked.values))
    return ApiResponse(
        _select(new, _ARTICLE), 201, {"Location": f"/api/knowledge/{new['id']}"}, versioned=True
    )


@routes.add("GET", _READ, {200: _ONE})
def reading(asked: ApiRequest) -> ApiResponse:
    """One article with its history; its comments are a separate resource."""
    article = current_request.services().catalogue.article(current_request.actor(), asked.path["article_id"])
    return ApiResponse(_select(article, _ARTICLE), versioned=True)


@routes.add("PUT", _READ, {200: _ONE}, body=fields.ARTICLE_REPLACED, refusals=(403, 409), conditional=True)
def saving(asked: ApiRequest) -> ApiResponse:
    """Replace an article; `If-Match`, or `revision` in the body, names the version that was edited."""
    article_id, values = asked.path["article_id"], dict(asked.values)
    revision = values.pop("revision")
    _refuse_named(asked)
    if asked.if_match is not None:
        revision = _matched(article_id, asked.if_match, revision)
    with _precondition(asked):
        saved = article_changes.save_and_read(article_id, {**values, "revision": revision})
    return ApiResponse(_select(saved, _ARTICLE), versioned=True)


@routes.add("DELETE", _READ, {204: None}, refusals=(403,), conditional=True)
def removing(asked: ApiRequest) -> ApiResponse:
    """Remove an article for good, with its comments and history."""
    article_id = asked.path["article_id"]
    _refuse_named(asked)
    if_match = asked.if_match or ""  # the dispatcher requires the header; an empty one matches nothing
    revision = _matched(article_id, if_match, 0)
    with _precondition(asked):
        article_changes.delete_article(article_id, None if if_match.strip() == ANY else revision)
    return ApiResponse({}, 204)


@routes.add(
    "POST", f"{_READ}/steps", {200: _ONE}, body=fields.STEP, more=_WHY, refusals=(403, 409), repeatable=True
)
def stepping(asked: ApiRequest) -> ApiResponse:
    """Perform a workflow step on the revision that the user has seen."""
    done = article_changes.take_step_and_read(asked.path["article_id"], dict(asked.values))
    return ApiResponse(_select(done, _ARTICLE), versioned=True)


@routes.add("GET", f"{_READ}/comments", {200: _COMMENTS}, query=fields.AFTER)
def comments(asked: ApiRequest) -> ApiResponse:
    """The remarks below an article, oldest first; `next` is the value of `after` for the next page."""
    with current_request.services().reads() as session:
        page = article_queries.comments(
            session, current_request.actor(), asked.path["article_id"], after=asked.query["after"] or None
        )
    return ApiResponse(page, versioned=True)


@routes.add(
    "POST",
    f"{_READ}/comments",
    {201: schemas.thing({"id": schemas.NUMBER})},
    body=fields.COMMENT,
    repeatable=True,
)
def commenting(asked: ApiRequest) -> ApiResponse:
    """Add a remark."""
    return ApiResponse(
        {"id": article_changes.add_comment(asked.path["article_id"], asked.values["body"])}, 201
    )


class _precondition:  # noqa: N801 - used like a function
    """Turn a conflict into a failed precondition if the revision was given in ``If-Match`` instead of the body."""

    def __init__(self, asked: ApiRequest) -> None:
        self._asked = asked

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Raise ``precondition-failed`` for a ``conflict``."""
        if isinstance(error, Problem) and error.code == "conflict" and self._asked.if_match is not None:
            raise Problem("precondition-failed", extra=error.extra) from error


def _matched(article_id: int, if_match: str, revision: int) -> int:
    """Return the current revision if ``If-Match`` and the body (0: not given) name it; otherwise raise 412."""
    current = _article(article_id)
    if not matches_entity_tag(if_match, entity_tag(encoded(current))) or revision not in {
        0,
        current["revision"],
    }:
        raise Problem("precondition-failed", extra={"current_revision": current["revision"]})
    found: int = current["revision"]
    return found


def _refuse_named(asked: ApiRequest) -> None:
    """Raise 412 if ``If-None-Match`` names the current version, or is ``*`` (RFC 9110, 13.1.2)."""
    if asked.if_none_match is None:
        return
    current = _article(asked.path["article_id"])
    if matches_entity_tag(asked.if_none_match, entity_tag(encoded(current)), weak=True):
        raise Problem("precondition-failed", extra={"current_revision": current["revision"]})


def _article(article_id: int) -> dict[str, Any]:
    with current_request.services().reads() as session:
        return _select(article_queries.read(session, current_request.actor(), article_id), _ARTICLE)


def _select(values: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    """Select the documented members, whatever else the pages use."""
    return {name: values[name] for name in members}
