"""Article pages: list and search, reading, writing, commenting."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial
from typing import Any, Final
from urllib.parse import quote_plus

from flask import Blueprint, Response, make_response, redirect, render_template, request
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain import article_templates, fields, markdown, page_numbers, permissions, workflow
from knowledge_system.domain.problems import Problem
from knowledge_system.services.knowledge import (
    article_queries,
    articles,
    comments,
    drafts,
    following,
    home,
    review,
    tree,
)
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.services.knowledge.article_reader import MOST, ListQuery
from knowledge_system.services.knowledge.following import Follow
from knowledge_system.web import article_changes, current_request, forms, recently_read
from knowledge_system.web.pages.review import differing, steps_now

pages = Blueprint("articles", __name__)

_OWN_PART: Final = Markup("<!-- own part -->")
"""Where a list, which is cached for many users, has what belongs to one: escaped text cannot contain it."""
_TYPED: Final = ("title", "category", "summary", "body", "tags", "site", "revision")
_EMPTY: Final = {**dict.fromkeys(_TYPED, ""), "status": "draft"}


@pages.get("/")
def start() -> Response:
    """Show the start page."""
    actor, now = current_request.actor(), current_request.now()
    recent = recently_read.article_ids()
    newest = current_request.services().catalogue.page(actor, ArticleFilter())[0]["items"][: home.MOST]
    shown = current_request.services().page_reads.run(
        lambda session: home.home_parts(session, actor, recent=recent, now=now)
    )
    return forms.private(render_template("home.html", section="home", newest=newest, **shown))


@pages.get("/articles")
def listing() -> Response:
    """Show the list, filtered or searched."""
    actor, catalogue = current_request.actor(), current_request.services().catalogue
    values = forms.query_values(fields.LIST_PAGE)
    asked = ListQuery(
        ArticleFilter(*(values[name] for name in ArticleFilter._fields)), values["q"], values["sort"]
    )
    if asked.query:
        current_request.check_limit("search")
    after, number, list_url = values["after"] or None, values["page"], _list_url(asked)

    may_write, sees_all = permissions.may_write(actor), permissions.sees_all(actor)
    reads, node = current_request.services().page_reads, int(asked.filter.node or 0)
    node_name = reads.run(lambda session: tree.name_of(session, actor, node)) if node else ""

    def show(page: dict[str, Any], counts: article_queries.ArticleCounts) -> str:
        return render_template(
            "_list.html",
            page=page,
            counts=counts,
            wanted=asked.filter,
            query=asked.query,
            sort=asked.sort,
            after=after,
            number=number,
            pages=page_numbers.pages(page["total"], number, size=catalogue.page_size, most=fields.MOST_PAGES),
            total=page["total"],
            most=MOST,
            list_url=list_url,
            node_name=node_name,
            may_write=may_write,
            sees_all=sees_all,
            own_part=_OWN_PART,
        )

    if asked.filter.same_for_everybody:
        shown_to = (current_request.language(), f"{may_write} {sees_all}", node_name)
        html, from_cache = catalogue.list_html(
            actor, asked, after=after, number=number, shown_to=shown_to, show=show
        )
    else:
        position = None if after else number
        page = reads.run(
            lambda session: catalogue.read_page(session, actor, asked, after=after, number=position)
        )
        html, from_cache = show(page, catalogue.counts_of(actor, asked, page)), False
    follow = _followed(asked.filter)
    before, _, rest = html.partition(_OWN_PART)
    response = make_response(
        render_template(
            "articles.html",
            section="articles",
            wanted=asked.filter,
            query=asked.query,
            list_html=(Markup(before), Markup(rest)),  # noqa: S704 - rendered by our own template, which escapes it
            follow=follow,
            list_url=list_url,
        )
    )
    response.headers["X-Cache"] = "hit" if from_cache else "miss"
    return response


@pages.get("/articles/<int:article_id>")
def reading(article_id: int) -> Response:
    """Show one article."""
    if current_request.actor().unread and request.method == "GET":
        article_changes.mark_notices_read(article_id)
    page, from_cache = _reading(article_id)
    recently_read.remember(article_id)
    response = make_response(page)
    response.headers["X-Cache"] = "hit" if from_cache else "miss"
    return response


@pages.post("/articles/<int:article_id>/comments")
def commenting(article_id: int) -> AnyResponse:
    """Add a comment."""
    forms.remember()
    try:
        current_request.check_limit("api_write")
        values = forms.read(fields.COMMENT_FORM)
        place = forms.once(lambda: _commented(article_id, values))
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _reading(article_id, shown)[0])
    return redirect(place, 303)


@pages.post("/articles/<int:article_id>/comments/<int:comment_id>")
def changing_comment(article_id: int, comment_id: int) -> AnyResponse:
    """Change the text of a comment."""
    current_request.check_limit("api_write")
    article_changes.change_comment(article_id, comment_id, forms.read(fields.COMMENT)["body"])
    return redirect(f"/articles/{article_id}?done=comment-changed#comment-{comment_id}", 303)


@pages.post("/articles/<int:article_id>/comments/<int:comment_id>/delete")
def removing_comment(article_id: int, comment_id: int) -> AnyResponse:
    """Remove a comment."""
    current_request.check_limit("api_write")
    forms.read({})
    article_changes.remove_comment(article_id, comment_id)
    return redirect(f"/articles/{article_id}?done=comment-removed#comments-title", 303)


def _commented(article_id: int, values: dict[str, Any]) -> str:
    article_changes.add_comment(article_id, values["body"], parent=values["parent"])
    return f"/articles/{article_id}?done=commented#comments-title"


@pages.get("/articles/new")
def blank() -> str:
    """Show an empty form."""
    if not permissions.may_write(current_request.actor()):
        raise Problem("forbidden")
    found = _draft(None)
    picked = article_templates.find(
        forms.query_values(fields.TEMPLATE)["template"], current_request.language()
    )
    values = {**_EMPTY, **(found.values if found else {})}
    if picked and not values["body"].strip():
        values |= {"body": picked.body, "category": values["category"] or picked.category}
    return _form(None, values, draft=found)


@pages.post("/articles")
@pages.post("/articles/new")
def creating() -> AnyResponse:
    """Create an article."""
    if not permissions.may_write(current_request.actor()):
        raise Problem("forbidden")
    forms.remember()
    try:
        current_request.check_limit("api_write")
        values = forms.read(fields.ARTICLE_FORM)
        place = forms.once(
            lambda: (
                f"/articles/{article_changes.create_article(values, draft=drafts.form_of(None))}?done=created"
            )
        )
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _form(None, _retyped(), shown))
    return redirect(place, 303)


@pages.post("/articles/preview")
def previewing() -> Response:
    """Show the input as readers would see it, without saving."""
    if not permissions.may_write(current_request.actor()):
        raise Problem("forbidden")
    current_request.check_limit("api_read")  # before the work: the longest text takes a second
    values = forms.read(fields.PREVIEW, ignore=(*_EMPTY.keys() - fields.PREVIEW.keys(),))
    body = markdown.render(values["body"], language=current_request.language())
    if values["part"]:  # beside the field, again and again
        return forms.private(body)
    return forms.private(render_template("preview.html", **{**values, "body": body}))


@pages.get("/articles/<int:article_id>/edit")
def editing(article_id: int) -> str:
    """Show the form of an existing article and its attachments."""
    return form_page(article_id)


def form_page(article_id: int, problem: Problem | None = None) -> str:
    """Render the form of an existing article as stored, with the error of an upload if there is one."""
    stored = _editable(article_id)
    article = _working(stored)
    # Approval is a separate step; saving a published article creates its next version.
    status = article["status"] if article["status"] in permissions.UNFINISHED else "draft"
    values = {**article, "status": status, "tags": "、".join(article["tags"])}
    found = None if problem else _draft(article_id, saved=values)
    if found is not None:
        values |= {**found.values, "revision": found.revision or values["revision"]}
    return _form(
        article_id,
        values,
        problem,
        draft=found,
        newest=article["revision"],
        published=stored["status"] == "published",
        attachments=stored["attachments"],
    )


@pages.post("/articles/<int:article_id>/edit")
def saving(article_id: int) -> AnyResponse:
    """Save an edit, unless another user saved first."""
    forms.remember()
    published = False
    try:
        published = _editable(article_id)["status"] == "published"
        current_request.check_limit("api_write")
        values = forms.read(fields.ARTICLE_EDIT_FORM)
        place = forms.once(lambda: _saved(article_id, values))
    except Problem as problem:
        if problem.code in {"forbidden", "not-found"}:
            return _left_over(problem)
        return forms.shown_again(
            problem, lambda shown: _form(article_id, _retyped(), shown, published=published)
        )
    return redirect(place, 303)


def _saved(article_id: int, values: dict[str, Any]) -> str:
    coming = article_changes.save_article(article_id, values, draft=drafts.form_of(article_id))
    if coming is None:
        return f"/articles/{article_id}?done=saved"
    return f"/articles/{article_id}/history/{coming}?done=next-saved"


@pages.post("/articles/new/discard")
def discarding_new() -> AnyResponse:
    """Discard the draft of a new article."""
    return _discarded(None)


@pages.post("/articles/<int:article_id>/discard")
def discarding(article_id: int) -> AnyResponse:
    """Discard the draft of an edit."""
    return _discarded(article_id)


def _discarded(article_id: int | None) -> AnyResponse:
    forms.remember()
    article_changes.discard_draft(drafts.form_of(article_id))
    return redirect(f"/articles/{article_id}/edit" if article_id else "/articles/new", 303)


def _draft(article_id: int | None, *, saved: dict[str, Any] | None = None) -> drafts.StoredDraft | None:
    """Return what the user typed and did not save, unless it is what was saved."""
    with current_request.services().reads() as session:
        found = drafts.load(session, current_request.actor(), drafts.form_of(article_id))
    if found is None or (
        saved is not None and all(saved[name] == found.values[name] for name in found.values)
    ):
        return None
    return found


def _left_over(problem: Problem) -> Response:
    """Offer the input for an article retired or deleted in the meantime as a new article.

    Raises:
        Problem: the original problem, if the user cannot write or did not enter a text.
    """
    if (
        current_request.wants_json()
        or not permissions.may_write(current_request.actor())
        or not forms.retyped("body")
    ):
        raise problem
    page = make_response(_form(None, _retyped(), left_over=True), problem.status)
    page.headers["Cache-Control"] = "no-store"
    return page


def _read(article_id: int) -> dict[str, Any]:
    with current_request.services().reads() as session:
        return article_queries.read(session, current_request.actor(), article_id)


def _working(article: dict[str, Any]) -> dict[str, Any]:
    """Return the article with the text of its next version, if there is one."""
    coming = article["next"]
    if coming is None:
        return article
    with current_request.services().reads() as session:
        text = review.text_of(session, current_request.actor(), article["id"], coming["revision"])
    return {**article, **{name: text[name] for name in articles.TEXT}, "status": coming["status"]}


def _editable(article_id: int) -> dict[str, Any]:
    article = _read(article_id)
    if not article["editable"]:
        raise Problem("forbidden")
    return article


def _reading(article_id: int, problem: Problem | None = None) -> tuple[str, bool]:
    """Render the page of an article; return it and whether its shared part was cached."""
    actor, catalogue = current_request.actor(), current_request.services().catalogue
    (article, html, headings), from_cache = catalogue.reading(actor, article_id, current_request.language())
    related = catalogue.related(actor, article)
    with current_request.services().reads() as session:
        follow = following.followed(session, actor, article_id=article_id)
    page = render_template(
        "article.html",
        section="articles",
        article=article,
        follow=follow,
        related=related,
        body=Markup(html),  # noqa: S704 - rendered and sanitized by our own renderer
        headings=headings,
        now=current_request.now(),
        threads=comments.in_threads(article["comments"]),
        may_restrict=article["editable"]
        and permissions.may_restrict(actor, author_id=article["subject"].author_id, status=article["status"]),
        may_change=partial(_may_change, current_request.now()),
        steps={} if article["next"] else steps_now(article, article["shown_revision"]),
        comment_text=forms.retyped("body") if problem else "",
        **forms.problem_context(problem),
    )
    return page, from_cache


def _may_change(now: datetime, comment: dict[str, Any]) -> bool:
    age = (now - datetime.fromisoformat(comment["created_at"])).total_seconds()
    return permissions.may_change_comment(
        current_request.actor(), author_id=comment.get("author_id", 0), age=age
    )


def _form(
    article_id: int | None,
    values: dict[str, Any],
    problem: Problem | None = None,
    *,
    published: bool = False,
    attachments: list[dict[str, Any]] | None = None,
    left_over: bool = False,
    draft: drafts.StoredDraft | None = None,
    newest: int = 0,
) -> str:
    current: dict[str, Any] | None = None
    found: tuple[Any, ...] = ()
    if article_id and attachments is None:
        attachments = _read(article_id)["attachments"]
    if article_id and problem and problem.code == "conflict":
        current = _working(_read(article_id))
        found = differing(current, _as_read(values), status=current["status"] in permissions.UNFINISHED)
        values = {**values, "revision": current["revision"]}
    sites = list(current_request.services().catalogue.counts(current_request.actor()).sites)[:100]
    choices = workflow.statuses_to_save(
        current_request.actor(), four_eyes=current_request.services().settings.four_eyes
    )
    return render_template(
        "article_form.html",
        section="articles",
        article_id=article_id,
        values=values,
        published=published,
        left_over=left_over,
        draft=draft,
        newest=newest,
        templates=article_templates.listed(current_request.language()),
        current=current,
        differing=found,
        attachments=attachments or [],
        upload_limit=current_request.services().intake.limit,
        may_detach=partial(
            permissions.may_detach, current_request.actor(), status="published" if published else "draft"
        ),
        sites=sites,
        categories=[(name, name) for name in permissions.CATEGORIES],
        statuses=[(key, permissions.STATUSES[key]) for key in choices],
        **forms.problem_context(problem),
    )


def _retyped() -> dict[str, Any]:
    return {name: forms.retyped(name) for name in _EMPTY}


def _as_read(typed: dict[str, Any]) -> dict[str, Any]:
    """Return the input as it would be saved: trimmed, with LF line ends."""
    plain = {name: str(value).replace("\r\n", "\n").strip() for name, value in typed.items()}
    return {**plain, "tags": list(dict.fromkeys(filter(None, re.split(r"[,、,\s]+", plain["tags"]))))}


def _followed(wanted: ArticleFilter) -> Follow | None:
    """Return whether the user watches the tag or site of the list."""
    if not wanted.tag and not wanted.site:
        return None
    with current_request.services().reads() as session:
        return following.followed(session, current_request.actor(), tag=wanted.tag, site=wanted.site)


def _list_url(asked: ListQuery) -> Callable[..., str]:
    quoted = cache(quote_plus)  # the query is part of fifty links on a page

    # A page links to the same few categories and tags a hundred times.
    @cache
    def url(*, after: str = "", page: int = 1, **changed: str) -> str:
        values = {**asked.filter._asdict(), "q": asked.query, "sort": asked.sort, **changed, "after": after}
        kept = {
            name: value
            for name, value in values.items()
            if value and (name, value) != ("status", "published")
        }
        if page > 1:
            kept["page"] = str(page)
        pairs = "&".join(f"{name}={quoted(value)}" for name, value in kept.items())
        return f"/articles?{pairs}" if kept else "/articles"

    return url
