"""The page to restrict an article, a category or a place of the tree to groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, redirect, request

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services import readers
from knowledge_system.web import article_changes, current_request, forms

if TYPE_CHECKING:
    from flask import Response as FlaskResponse
    from werkzeug.wrappers import Response

pages = Blueprint("readers", __name__, url_prefix="/readers")


@pages.get("/<kind>/<subject>")
def choosing(kind: str, subject: str) -> FlaskResponse:
    """Show the groups to which something is restricted."""
    return forms.private(_page(kind, subject))


@pages.post("/<kind>/<subject>")
def restricting(kind: str, subject: str) -> Response:
    """Restrict something to the chosen groups; without one, open it to everybody."""
    try:
        values = forms.read(fields.readers(forms.remember()))
        seen = values.pop("seen")
        chosen = [int(name.removeprefix("group-")) for name, value in values.items() if value]
        article_changes.restrict(kind, subject, chosen, seen=seen)
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _page(kind, subject, shown))
    return redirect(f"{_back(kind, subject)}?done=restricted", 303)


def _back(kind: str, subject: str) -> str:
    return {"article": f"/articles/{subject}", "node": "/tree"}.get(kind, "/admin/groups")


def _page(kind: str, subject: str, problem: Problem | None = None) -> str:
    with current_request.services().reads() as session:
        found = readers.find(session, current_request.actor(), kind, subject)
    return forms.render(
        "readers.html",
        problem,
        section="admin" if kind == "category" else "articles",
        kind=kind,
        restriction=found,
        chosen={group for group in found.groups if forms.retyped(f"group-{group}")}
        if problem
        else found.chosen,
        path=request.path,
        back=_back(kind, subject),
    )
