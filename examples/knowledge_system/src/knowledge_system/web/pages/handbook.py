"""The handbook: a chapter for each role, in both languages."""

from __future__ import annotations

from functools import cache
from typing import Final

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from knowledge_system.domain import content, markdown
from knowledge_system.domain.problems import Problem
from knowledge_system.web import current_request

pages = Blueprint("handbook", __name__, url_prefix="/handbook")

CHAPTERS: Final = {"viewer": "読む人", "writer": "書く人", "reviewer": "承認する人", "admin": "管理する人"}
"""Titles of the chapters by role; each one is a text in ``content/handbook``, and open to everybody."""


@pages.get("")
def own_chapter() -> Response:
    """Lead to the chapter of the user's role."""
    return redirect(f"/handbook/{current_request.actor().role}", 303)


@pages.get("/<chapter>")
def showing(chapter: str) -> str:
    """Show a chapter."""
    if chapter not in CHAPTERS:
        raise Problem("not-found")
    text = _rendered(chapter, current_request.language())
    return render_template(
        "handbook.html",
        section="handbook",
        chapter=chapter,
        chapters=CHAPTERS,
        body=text.html,
        headings=text.headings,
    )


@cache
def _rendered(chapter: str, language: str) -> markdown.Rendered:
    return markdown.rendered(content.read_text("handbook", language, f"{chapter}.md"), language=language)
