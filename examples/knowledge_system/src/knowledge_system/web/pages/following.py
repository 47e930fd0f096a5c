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
    with current_request.services().sessions() as session:
        kept = following.favourites(session, current_request.actor())
        watched = following.watches(session, current_request.actor())
    return forms.private(
        render_template("favourites.html", section="favourites", favourites=kept, watches=watched)
    )


@pages.post("/articles/<int:article_id>/favourite")
def favouring(article_id: int) -> AnyResponse:
    """Add or remove a favourite."""
    on = forms.read(fields.FAVOUR_FORM)["on"] == "on"
    article_changes.favour(article_id, on=on)
    return redirect(f"/articles/{article_id}?done={'favourite' if on else 'no-favourite'}", 303)


@pages.post("/watches")
def watching() -> AnyResponse:
    """Subscribe to or unsubscribe from an article, tag or site."""
    asked = forms.read(fields.WATCH_FORM)
    article_changes.watch(asked["kind"], asked["subject"], on=asked["on"] == "on")
    back = forms.safe_next(asked["next"]) if asked["next"] else "/favourites"
    return redirect(back, 303)


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
    with current_request.services().sessions() as session:
        shown = following.site_page(session, current_request.actor(), name)
        follow = following.followed(session, current_request.actor(), site=name)
    path = f"/site?{urlencode({'name': name})}"
    return render_template("site.html", section="sites", site=shown, follow=follow, path=path)
