"""Workflow pages: steps, review queue, older revisions with differences, notices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain import fields, markdown, permissions, workflow
from knowledge_system.domain.problems import Problem
from knowledge_system.domain.rendered_differences import rendered_differences
from knowledge_system.domain.text_differences import Line, difference
from knowledge_system.services.knowledge import overdue_articles, review
from knowledge_system.web import article_changes, current_request, forms

pages = Blueprint("review", __name__)

LABELS = {
    "title": "題名",
    "category": "分類",
    "site": "現場・工事",
    "summary": "要約",
    "body": "本文",
    "tags": "タグ",
}
"""Labels of the text fields."""


def differing(
    old: Mapping[str, Any], new: Mapping[str, Any], *, status: bool = False
) -> tuple[tuple[str, tuple[Line, ...]], ...]:
    """Return the fields in which two texts differ, by label, with the differences.

    Args:
        old: older text.
        new: newer text.
        status: whether to compare the status (draft or in review) too.
    """
    names = {**LABELS, **({"status": "保存のしかた"} if status else {})}
    compared = (
        (current_request.say(label), difference(_text(name, old[name]), _text(name, new[name])))
        for name, label in names.items()
    )
    return tuple((label, lines) for label, lines in compared if lines)


def _text(name: str, value: Any) -> str:
    if name == "status":
        return current_request.say(permissions.STATUSES.get(value, str(value)))
    if name == "category":
        return current_request.say(str(value))
    return "、".join(value) if isinstance(value, (list, tuple)) else str(value)


@pages.post("/articles/<int:article_id>/steps")
def stepping(article_id: int) -> AnyResponse:
    """Take a workflow step."""
    values = forms.read(fields.STEP_FORM)
    try:
        place = forms.once(lambda: _stepped(article_id, values))
    except Problem as problem:
        if problem.code not in {"conflict", "wrong-state"} and not problem.errors:
            raise
        return forms.shown_again(problem, lambda shown: _revision_page(article_id, None, shown))
    return redirect(place, 303)


def _stepped(article_id: int, values: dict[str, Any]) -> str:
    article_changes.take_step(article_id, **values)
    return f"/articles/{article_id}?done=step-{values['step']}"


@pages.get("/articles/<int:article_id>/history")
def history(article_id: int) -> str:
    """Show all revisions and the workflow steps."""
    actor = current_request.actor()
    with current_request.services().reads() as session:
        article = current_request.services().catalogue.article(actor, article_id)
        taken = review.steps(session, actor, article_id) if article["editable"] else []
    return render_template("history.html", section="articles", article=article, steps=taken)


@pages.get("/articles/<int:article_id>/compare")
def comparing(article_id: int) -> str:
    """Show the differences of any two revisions, as readers see them or of the text as it was typed."""
    actor, asked = current_request.actor(), forms.query_values(fields.COMPARE)
    article = current_request.services().catalogue.article(actor, article_id)
    numbers = sorted(entry["revision"] for entry in article["history"])
    new = asked["new"] or numbers[-1]
    old = asked["old"] or max((number for number in numbers if number < new), default=new)
    with current_request.services().reads() as session:
        before, after = (review.text_of(session, actor, article_id, number) for number in (old, new))
    typed = asked["view"] == "text"
    found = dict(differing(before, after))
    body = current_request.say(LABELS["body"])
    return render_template(
        "compare.html",
        section="articles",
        article=article,
        before=before,
        after=after,
        view=asked["view"],
        differing=[(label, lines) for label, lines in found.items() if typed or label != body],
        blocks=()
        if typed
        else rendered_differences(before["body"], after["body"], language=current_request.language()),
    )


@pages.get("/articles/<int:article_id>/history/<int:number>")
def revision(article_id: int, number: int) -> str:
    """Show the text of a revision and its changes."""
    return _revision_page(article_id, number)


@pages.post("/articles/<int:article_id>/history/<int:number>/restore")
@forms.form(fields.RESTORE, run_once=True)
def restoring(*, article_id: int, number: int, revision: int) -> str:
    """Restore an older text as a draft."""
    article_changes.restore(article_id, number, on=revision)
    return f"/articles/{article_id}/edit?done=restored"


@pages.get("/reviews")
def queue() -> str:
    """Show the review queue."""
    with current_request.services().reads() as session:
        waiting = review.queue(session, current_request.actor())
    return render_template("reviews.html", section="reviews", waiting=waiting)


@pages.get("/overdue")
def overdue() -> str:
    """Show the overdue articles."""
    actor = current_request.actor()
    if not permissions.may_write(actor):
        raise Problem("forbidden")
    with current_request.services().reads() as session:
        found = overdue_articles.overdue(session, actor, now=current_request.now())
    return render_template("overdue.html", section="reviews", overdue=found)


@pages.get("/notices")
def noticed() -> Response:
    """Show the user's notices."""
    with current_request.services().reads() as session:
        found = review.notices(session, current_request.actor())
        overdue_number, overdue_unread = review.overdue_notices(session, current_request.actor())
    response = make_response(
        render_template(
            "notices.html",
            section="notices",
            notices=found,
            overdue_number=overdue_number,
            overdue_unread=overdue_unread,
        )
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.post("/notices/read")
@forms.form({})
def read_all() -> str:
    """Mark all notices as read."""
    article_changes.mark_notices_read()
    return "/notices"


def _revision_page(article_id: int, number: int | None, problem: Problem | None = None) -> str:
    actor = current_request.actor()
    article = current_request.services().catalogue.article(actor, article_id)
    if number is None:
        number = article["next"]["revision"] if article["next"] else article["shown_revision"]
    older = [entry["revision"] for entry in article["history"] if entry["revision"] < number]
    if article["next"] and number == article["next"]["revision"]:
        older = [article["shown_revision"]]  # the reviewer decides on the difference from the published text
    before = None
    with current_request.services().reads() as session:
        shown = review.text_of(session, actor, article_id, number)
        if older:
            try:
                before = review.text_of(session, actor, article_id, older[0])
            except Problem as missing:
                if missing.code not in {"no-text", "not-found"}:  # not-found: of a restricted category
                    raise
    return forms.render(
        "revision.html",
        problem,
        section="articles",
        article=article,
        shown=shown,
        before=before,
        differing=differing(before, shown) if before else (),
        body=markdown.render(shown["body"], language=current_request.language()),
        steps=steps_now(article, number),
        comment_text=forms.retyped("comment") if problem else "",
    )


def steps_now(article: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the steps the user can take, if the revision is the one that they apply to."""
    if (
        not article["editable"]
        or number != (article["next"] or {"revision": article["shown_revision"]})["revision"]
    ):
        return {}
    return workflow.steps_for(
        current_request.actor(), article["subject"], four_eyes=current_request.services().settings.four_eyes
    )
