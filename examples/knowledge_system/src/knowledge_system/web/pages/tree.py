"""Pages of the tree: reading it, arranging it, and the place of an article."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.knowledge import article_queries, tree
from knowledge_system.web import article_changes, current_request, forms

pages = Blueprint("tree", __name__)


def _page(problem: Problem | None = None) -> str:
    with current_request.services().reads() as session:
        whole = tree.whole(session, current_request.actor())
    return forms.render("tree.html", problem, section="articles", tree=whole, name=forms.retyped("name"))


@pages.get("/tree")
def showing() -> str:
    """Show the tree, with the forms to arrange it."""
    return _page()


@pages.post("/tree")
@forms.form(fields.NODE, page=_page, run_once=True)
def adding(*, name: str, parent: int) -> str:
    """Add a node."""
    return f"/tree?done=node-added#node-{article_changes.add_node(name, parent)}"


@pages.post("/tree/<int:node_id>")
@forms.form(fields.NODE_CHANGE, page=lambda **shown: _page(shown["problem"]))
def changing(*, node_id: int, **values: Any) -> str:
    """Rename, move or remove a node."""
    article_changes.change_node(node_id, values)
    done = {"rename": "renamed", "remove": "removed"}.get(values["step"], "moved")
    return f"/tree?done=node-{done}#node-{node_id}"


@pages.get("/articles/<int:article_id>/place")
def placing_form(article_id: int) -> str:
    """Show the form to choose the place of an article."""
    with current_request.services().reads() as session:
        article = article_queries.read(session, current_request.actor(), article_id)
        whole = tree.whole(session, current_request.actor())
    if not article["editable"]:
        raise Problem("forbidden")
    return render_template("place.html", section="articles", article=article, tree=whole)


@pages.post("/articles/<int:article_id>/place")
@forms.form(fields.PLACE)
def placing(*, article_id: int, node: int) -> str:
    """Choose the place of an article."""
    article_changes.place_article(article_id, node)
    return f"/articles/{article_id}?done=placed"
