"""``/api/knowledge``: the articles."""

from __future__ import annotations

from flask import Blueprint, Response

from knowledge_system import fields
from knowledge_system.api.body import answer, read
from knowledge_system.services import articles
from knowledge_system.services.articles import ArticleFilter
from knowledge_system.web import forms, here

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
    actor = here.actor()
    here.check_limit("api_write")
    values = read(fields.ARTICLE)
    with here.parts().sessions.begin() as session:
        new = articles.create(session, actor, values, search=here.parts().search, now=here.now())
    here.parts().catalogue.forget()
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
    actor = here.actor()
    here.check_limit("api_write")
    values = read(fields.ARTICLE_EDIT)
    revision = values.pop("revision")
    with here.parts().sessions.begin() as session:
        articles.save(
            session, actor, article_id, values, revision=revision, search=here.parts().search, now=here.now()
        )
    here.parts().catalogue.forget()
    return answer(_article(article_id))


@endpoints.post("/<int:article_id>/comments")
def commenting(article_id: int) -> Response:
    """Add a remark."""
    actor = here.actor()
    here.check_limit("api_write")
    values = read(fields.COMMENT)
    with here.parts().sessions.begin() as session:
        new = articles.add_comment(session, actor, article_id, values["body"], now=here.now())
    here.parts().catalogue.forget()
    return answer({"id": new}, 201)


def _article(article_id: int) -> dict[str, object]:
    with here.parts().sessions() as session:
        return articles.read(session, here.actor(), article_id)
