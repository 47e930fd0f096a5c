"""Export and import of articles as zip files."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain import fields, page_numbers, permissions
from knowledge_system.domain.files.bundle import write_zip
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.services import export_import
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.services.knowledge.article_reader import MOST, ListQuery
from knowledge_system.web import article_changes, current_request, forms
from knowledge_system.web.files.uploads import digest, received

pages = Blueprint("exchange", __name__, url_prefix="/exchange")

_ID: Final = re.compile(r"[0-9]+")


@pages.get("/choose")
def choosing() -> str:
    """Show the export form for a filtered or searched list."""
    asked = forms.query_values(fields.export(request.args))
    return _choice({**asked, "page": asked["to"] or asked["page"]})


@pages.get("/export")
def exporting() -> Response:
    """Export the selected articles, the given ids, or a filtered or searched list.

    A long list is exported in parts.
    """
    current_request.check_limit("api_write")
    asked = forms.query_values(fields.export(request.args), strict=True)
    try:
        return _zip(_ids(asked))
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _choice(asked, shown))


def _ids(asked: dict[str, Any]) -> list[int]:
    picked = _picked(asked)
    if len(picked) > fields.MOST_PICKED:
        raise Problem("invalid", errors=[FieldError("picked", "too-many", fields.MOST_PICKED)])
    if picked:
        return picked
    if asked["picked"]:
        raise Problem("invalid", errors=[FieldError("picked", "nothing-picked")])
    if asked["q"]:
        current_request.check_limit("search")
    most, part = export_import.MOST_ARTICLES, asked["part"]
    found = current_request.services().catalogue.ids
    if part:
        return found(current_request.actor(), _wanted(asked), most=most, skip=(part - 1) * most)
    return found(current_request.actor(), _wanted(asked), most=most + 1)


def _picked(asked: dict[str, Any]) -> list[int]:
    """Return the ids of the articles selected on this page and on others."""
    here_picked = [name[3:] for name, value in asked.items() if name.startswith("id-") and value]
    return sorted({int(each) for each in (*_ID.findall(asked["ids"]), *here_picked)})


def _wanted(asked: dict[str, Any]) -> ListQuery:
    return ListQuery(
        ArticleFilter(*(asked[name] for name in ArticleFilter._fields)), asked["q"], asked["sort"]
    )


def _choice(asked: dict[str, Any], problem: Problem | None = None) -> str:
    parts = current_request.services()
    if asked["q"]:
        current_request.check_limit("search")
    with parts.reads() as session:
        page = parts.catalogue.read_page(
            session, current_request.actor(), _wanted(asked), number=asked["page"]
        )
    picked, shown = set(_picked(asked)[: fields.MOST_PICKED]), {item["id"] for item in page["items"]}
    kept = {
        name: str(asked[name])
        for name in fields.LIST
        if asked[name] and (name, asked[name]) != ("status", "published")
    }
    return forms.render(
        "export.html",
        problem,
        section="articles",
        page=page,
        number=asked["page"],
        pages=page_numbers.pages(
            page["total"], asked["page"], size=parts.catalogue.page_size, most=fields.MOST_PAGES
        ),
        kept=kept,
        most=export_import.MOST_ARTICLES,
        most_bytes=export_import.MOST_BYTES,
        parts_of=range(1, -(-page["total"] // export_import.MOST_ARTICLES) + 1),
        counted=MOST,
        picked=picked & shown,
        elsewhere=sorted(picked - shown),
    )


def _zip(ids: list[int]) -> Response:
    """Stream the zip file while it is created, so that it needs neither memory nor disk space of its size."""
    parts, actor = current_request.services(), current_request.actor()
    with parts.reads() as session:
        chosen = export_import.selected(session, actor, ids)
    pieces = write_zip(export_import.entries(parts.reads, actor, chosen, store=parts.intake.store))
    moment = datetime.fromtimestamp(parts.clock.time(), permissions.JST)
    response = Response(pieces, mimetype="application/zip")
    response.headers["Content-Disposition"] = f'attachment; filename="knowledge-{moment:%Y%m%d-%H%M}.zip"'
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.get("/import")
def form() -> str:
    """Show the import form."""
    return _form()


@pages.post("/import")
def importing() -> AnyResponse:
    """Import the articles of a zip file as drafts, all or none."""
    try:
        bundle = received()[0][1]
        place = forms.once(lambda: _imported(bundle), content=digest([("", bundle)]))
    except Problem as problem:
        return forms.shown_again(problem, _form)
    return redirect(place, 303)


def _imported(bundle: bytes) -> str:
    article_changes.import_articles(bundle)
    return "/articles?status=draft&done=imported"


def _form(problem: Problem | None = None) -> str:
    return forms.render(
        "import.html",
        problem,
        section="articles",
        limit=current_request.services().intake.limit,
        limits=export_import.LIMITS,
        most=export_import.MOST_ARTICLES,
        most_pixels=export_import.MOST_PIXELS // 1_000_000,
    )
