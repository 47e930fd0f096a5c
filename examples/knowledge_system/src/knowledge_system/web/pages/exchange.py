"""Articles out as a zip, and in."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Blueprint, redirect, render_template, send_file

from knowledge_system.domain import fields, rules
from knowledge_system.domain.files.bundle import pack
from knowledge_system.domain.problems import Problem
from knowledge_system.services import exchange
from knowledge_system.services.knowledge.lookup import ArticleFilter
from knowledge_system.web import forms, here, writing
from knowledge_system.web.files.receiving import received

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.wrappers import Response as AnyResponse

__all__ = ["pages"]

pages = Blueprint("exchange", __name__, url_prefix="/exchange")


@pages.get("/export")
def exporting() -> Response:
    """A zip of the articles with these ids, or of a list as it is filtered."""
    actor = here.actor()
    here.check_limit("api_write")
    asked = forms.query_values(fields.EXPORT, strict=True)
    wanted = ArticleFilter(asked["category"], asked["tag"], asked["status"], asked["author"], asked["site"])
    ids = [int(each) for each in asked["ids"].split(",") if each]
    store = here.parts().intake.store
    with store.scratch() as scratch, here.parts().sessions() as session:
        pack(
            exchange.entries(session, actor, exchange.selected(session, actor, wanted, ids), store=store),
            scratch,
        )
        scratch.flush()
        # Opened by its name once more: the file vanishes with the folder's entry, the answer goes on reading it.
        file = Path(scratch.name).open("rb")  # noqa: SIM115 - the answer closes it
    moment = datetime.fromtimestamp(here.parts().clock.time(), rules.JST)
    response = send_file(
        file,
        mimetype="application/zip",
        as_attachment=True,
        download_name=f"knowledge-{moment:%Y%m%d-%H%M}.zip",
        etag=False,
        max_age=0,
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers.pop("Expires", None)
    return response


@pages.get("/import")
def form() -> str:
    """Where a zip is handed in."""
    return _form()


@pages.post("/import")
def importing() -> AnyResponse:
    """Add the articles of a zip as drafts, all of them or none."""
    here.check_limit("api_write")
    try:
        writing.import_articles(received()[0][1])
    except Problem as problem:
        return forms.shown_again(problem, _form)
    return redirect("/articles?status=draft&done=imported", 303)


def _form(problem: Problem | None = None) -> str:
    return render_template(
        "import.html", section="articles", limit=here.parts().intake.limit, **forms.told(problem)
    )
