"""Pages of favourites, subscriptions and sites."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Blueprint, Response, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain import fields
from knowledge_system.services.knowledge import following
from knowledge_system.web import article_changes, current_request, forms

pages = Blueprint("following", __name__)


@pages.get("/favourites")
def favourites() -> Response:
    """Show the user's favourites and subscriptions."""
    with current_request.services().reads() as session:
        kept = following.favourites(session, current_request.actor())
        watched = following.watches(session, current_request.actor())
    return forms.private(
        render_template("favourites.html", section="favourites", favourites=kept, watches=watched)
    )


@pages.post("/articles/<int:article_id>/favourite")
@forms.form(fields.FAVOUR_FORM)
def favouring(*, article_id: int, on: str) -> str:
    """Add or remove a favourite."""
    article_changes.favour(article_id, on=on == "on")
    return f"/articles/{article_id}?done={'favourite' if on else 'no-favourite'}"


@pages.post("/watches")
@forms.form(fields.WATCH_FORM)
def watching(*, kind: str, subject: str, on: str, **asked: str) -> str:
    """Subscribe to or unsubscribe from an article, tag or site."""
    article_changes.watch(kind, subject, on=on == "on")
    return forms.safe_next(asked["next"]) if asked["next"] else "/favourites"


@pages.get("/sites")
def sites() -> str:
    """List the sites that have published articles."""
    counted = current_request.services().catalogue.counts(current_request.actor()).sites
    return render_template("sites.html", section="sites", sites=counted)


@pages.get("/site")
def site() -> str | AnyResponse:
    """Show one site."""
    name = forms.query_values(fields.SITE)["name"]
    if not name:
        return redirect("/sites", 303)
    with current_request.services().reads() as session:
        shown = following.site_page(session, current_request.actor(), name)
        follow = following.followed(session, current_request.actor(), site=name)
    path = f"/site?{urlencode({'name': name})}"
    return render_template("site.html", section="sites", site=shown, follow=follow, path=path)
