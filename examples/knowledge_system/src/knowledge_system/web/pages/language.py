"""Language switch between Japanese and English."""

from __future__ import annotations

from flask import Blueprint, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from knowledge_system.domain import fields
from knowledge_system.web import article_changes, cookies, current_request, forms

pages = Blueprint("language", __name__)


@pages.post("/language")
@forms.form(fields.LANGUAGE)
def switching(*, language: str) -> str:
    """Store the language for this browser, and for the signed-in user in all browsers and mails."""
    cookies.keep(cookies.LANGUAGE, language)
    if current_request.actor_or_none():
        article_changes.choose_language(language)
    return _page(forms.came_from())


def _page(path: str) -> str:
    """Return the page, or the start page if it cannot be requested with GET."""
    adapter = current_app.create_url_adapter(request)
    try:
        if adapter is not None:
            adapter.match(path.partition("?")[0], method="GET")
    except (HTTPException, RequestRedirect):
        return "/"
    return path
