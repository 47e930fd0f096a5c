"""Pages of articles: list and search, reading, writing, commenting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Blueprint, make_response, redirect, render_template

from knowledge_system import fields, markdown, rules
from knowledge_system.problems import Problem
from knowledge_system.services import articles
from knowledge_system.services.articles import ArticleFilter
from knowledge_system.web import forms, here, writing

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.wrappers import Response as AnyResponse

__all__ = ["pages"]

pages = Blueprint("articles", __name__)

_EMPTY = {
    "title": "",
    "category": "",
    "status": "draft",
    "summary": "",
    "body": "",
    "tags": "",
    "revision": "",
}


@pages.get("/")
def home() -> AnyResponse:
    """The start page is the list."""
    return redirect("/articles", 303)


@pages.get("/articles")
def listing() -> Response:
    """The list, filtered or searched."""
    actor = here.actor()
    asked = forms.query_values(fields.LIST)
    wanted = ArticleFilter(asked["category"], asked["tag"], asked["status"], asked["author"])
    if asked["q"]:
        here.check_limit("search")
    catalogue = here.parts().catalogue
    page, from_cache = catalogue.page(actor, wanted, query=asked["q"], after=asked["after"] or None)
    response = make_response(
        render_template(
            "articles.html",
            section="articles",
            wanted=wanted,
            query=asked["q"],
            after=asked["after"],
            page=page,
            counts=catalogue.counts(),
            list_url=_list_url(wanted, asked["q"]),
        )
    )
    response.headers["X-Cache"] = "hit" if from_cache else "miss"
    return response


@pages.get("/articles/<int:article_id>")
def reading(article_id: int) -> str:
    """One article."""
    return _reading(article_id)


@pages.post("/articles/<int:article_id>/comments")
def commenting(article_id: int) -> AnyResponse:
    """Add a remark."""
    here.actor()
    here.check_limit("api_write")
    try:
        writing.add_comment(article_id, forms.read(fields.COMMENT)["body"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _reading(article_id, shown))
    return redirect(f"/articles/{article_id}?done=commented#comments-title", 303)


@pages.get("/articles/new")
def blank() -> str:
    """An empty form."""
    if not rules.may_write(here.actor()):
        raise Problem("forbidden")
    return _form(None, _EMPTY)


@pages.post("/articles")
def creating() -> AnyResponse:
    """Save a new article."""
    if not rules.may_write(here.actor()):
        raise Problem("forbidden")
    here.check_limit("api_write")
    try:
        new = writing.create_article(forms.read(fields.ARTICLE_FORM))
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _form(None, _retyped(), shown))
    return redirect(f"/articles/{new}?done=created", 303)


@pages.get("/articles/<int:article_id>/edit")
def editing(article_id: int) -> str:
    """The form of an existing article."""
    article = _editable(article_id)
    return _form(article_id, {**article, "tags": "、".join(article["tags"])})


@pages.post("/articles/<int:article_id>/edit")
def saving(article_id: int) -> AnyResponse:
    """Save an edit, unless somebody else saved first."""
    _editable(article_id)
    here.check_limit("api_write")
    try:
        writing.save_article(article_id, forms.read(fields.ARTICLE_EDIT_FORM))
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _form(article_id, _retyped(), shown))
    return redirect(f"/articles/{article_id}?done=saved", 303)


def _read(article_id: int) -> dict[str, Any]:
    with here.parts().sessions() as session:
        return articles.read(session, here.actor(), article_id)


def _editable(article_id: int) -> dict[str, Any]:
    article = _read(article_id)
    if not article["editable"]:
        raise Problem("forbidden")
    return article


def _reading(article_id: int, problem: Problem | None = None) -> str:
    article = _read(article_id)
    return render_template(
        "article.html",
        section="articles",
        article=article,
        body=markdown.render(article["body"]),
        headings=markdown.headings(article["body"]),
        comment_text=forms.retyped("body") if problem else "",
        **forms.told(problem),
    )


def _form(article_id: int | None, values: dict[str, Any], problem: Problem | None = None) -> str:
    current = None
    if article_id and problem and problem.code == "conflict":
        current = _read(article_id)
        values = {**values, "revision": current["revision"]}
    choices = rules.statuses_for(here.actor())
    return render_template(
        "article_form.html",
        section="articles",
        article_id=article_id,
        values=values,
        current=current,
        categories=[(name, name) for name in rules.CATEGORIES],
        statuses=[(key, rules.STATUSES[key]) for key in choices],
        **forms.told(problem),
    )


def _retyped() -> dict[str, Any]:
    return {name: forms.retyped(name) for name in _EMPTY}


def _list_url(wanted: ArticleFilter, query: str) -> Callable[..., str]:
    def url(*, after: str = "", **changed: str) -> str:
        values = {**wanted._asdict(), "q": query, **changed, "after": after}
        kept = {
            name: value
            for name, value in values.items()
            if value and (name, value) != ("status", "published")
        }
        return f"/articles?{urlencode(kept)}" if kept else "/articles"

    return url
