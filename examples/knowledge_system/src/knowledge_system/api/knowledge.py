"""``/api/knowledge``: the articles."""

from __future__ import annotations

from flask import Blueprint, Response

from knowledge_system import fields
from knowledge_system.api.body import answer, read
from knowledge_system.services import articles
from knowledge_system.services.articles import ArticleFilter
from knowledge_system.web import forms, here, writing

__all__ = ["endpoints"]

endpoints = Blueprint("api_knowledge", __name__, url_prefix="/api/knowledge")


@endpoints.get("")
def listing() -> Response:
    """One page of articles; ``next`` is the value of ``after`` for the next page."""
    actor = here.actor()
    here.check_limit("api_read")
    asked = forms.query_values(fields.LIST, strict=True)
    if asked["q"]:
        here.check_limit("search")
    wanted = ArticleFilter(asked["category"], asked["tag"], asked["status"], asked["author"])
    page, from_cache = here.parts().catalogue.page(
        actor, wanted, query=asked["q"], after=asked["after"] or None
    )
    return answer(page, headers={"X-Cache": "hit" if from_cache else "miss"})


@endpoints.post("")
def creating() -> Response:
    """A new article."""
    here.actor()
    here.check_limit("api_write")
    new = writing.create_article(read(fields.ARTICLE))
    return answer(_article(new), 201, headers={"Location": f"/api/knowledge/{new}"})


@endpoints.get("/<int:article_id>")
def reading(article_id: int) -> Response:
    """One article with comments and history."""
    here.actor()
    here.check_limit("api_read")
    return answer(_article(article_id))


@endpoints.put("/<int:article_id>")
def saving(article_id: int) -> Response:
    """Replace an article; ``revision`` is the one the edit was made on."""
    here.actor()
    here.check_limit("api_write")
    writing.save_article(article_id, read(fields.ARTICLE_EDIT))
    return answer(_article(article_id))


@endpoints.post("/<int:article_id>/comments")
def commenting(article_id: int) -> Response:
    """Add a remark."""
    here.actor()
    here.check_limit("api_write")
    return answer({"id": writing.add_comment(article_id, read(fields.COMMENT)["body"])}, 201)


def _article(article_id: int) -> dict[str, object]:
    with here.parts().sessions() as session:
        return articles.read(session, here.actor(), article_id)
