"""Pages of the tree: reading it, arranging it, and the place of an article."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.knowledge import article_queries, tree
from knowledge_system.web import article_changes, current_request, forms

pages = Blueprint("tree", __name__)


@pages.get("/tree")
def showing() -> str:
    """Show the tree, with the forms to arrange it."""
    return _page()


@pages.post("/tree")
def adding() -> Response:
    """Add a node."""
    return forms.submitted(
        fields.NODE, lambda values: f"/tree?done=node-added#node-{article_changes.add_node(**values)}", _page
    )


@pages.post("/tree/<int:node_id>")
def changing(node_id: int) -> Response:
    """Rename, move or remove a node."""
    try:
        values = forms.read(fields.NODE_CHANGE)
        article_changes.change_node(node_id, values)
    except Problem as problem:
        return forms.shown_again(problem, _page)
    done = {"rename": "renamed", "remove": "removed"}.get(values["step"], "moved")
    return redirect(f"/tree?done=node-{done}#node-{node_id}", 303)


@pages.get("/articles/<int:article_id>/place")
def placing_form(article_id: int) -> str:
    """Show the form to choose the place of an article."""
    with current_request.services().sessions() as session:
        article = article_queries.read(session, current_request.actor(), article_id)
        whole = tree.whole(session, current_request.actor())
    if not article["editable"]:
        raise Problem("forbidden")
    return render_template("place.html", section="articles", article=article, tree=whole)


@pages.post("/articles/<int:article_id>/place")
def placing(article_id: int) -> Response:
    """Choose the place of an article."""
    article_changes.place_article(article_id, forms.read(fields.PLACE)["node"])
    return redirect(f"/articles/{article_id}?done=placed", 303)


def _page(problem: Problem | None = None) -> str:
    context: dict[str, Any] = forms.problem_context(problem)
    with current_request.services().sessions() as session:
        whole = tree.whole(session, current_request.actor())
    return render_template("tree.html", section="articles", tree=whole, name=forms.retyped("name"), **context)
