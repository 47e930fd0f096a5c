"""Language switch between Japanese and English."""

from __future__ import annotations

from flask import Blueprint, current_app, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.web import article_changes, cookies, current_request, forms

pages = Blueprint("language", __name__)


@pages.post("/language")
def switching() -> Response:
    """Store the language for this browser, and for the signed-in user in all browsers and mails."""
    chosen = forms.read(fields.LANGUAGE)["language"]
    cookies.keep(cookies.LANGUAGE, chosen)
    if current_request.actor_or_none():
        article_changes.choose_language(chosen)
    return redirect(_page(forms.came_from()), 303)


def _page(path: str) -> str:
    """Return the page, or the start page if it cannot be requested with GET."""
    adapter = current_app.create_url_adapter(request)
    try:
        if adapter is not None:
            adapter.match(path.partition("?")[0], method="GET")
    except (HTTPException, RequestRedirect):
        return "/"
    return path
