"""Progressive web app: manifest, service worker, offline copies of articles."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response, make_response, render_template
from markupsafe import Markup

from knowledge_system.web import current_request, forms
from knowledge_system.web.rendering import asset

pages = Blueprint("offline", __name__)

_SHELL: Final = ("app.css", "logo.svg", "offline.js")
_MANIFEST: Final = {
    "id": "/",
    "start_url": "/articles",
    "scope": "/",
    "display": "standalone",
    "background_color": "#f3f5f3",
    "theme_color": "#12303b",
}


@pages.get("/manifest.webmanifest")
def manifest() -> Response:
    """Return the web app manifest."""
    current_request.stay_anonymous()
    name, short = current_request.say("建設土木ナレッジシステム"), current_request.say("ナレッジ")
    named = {"name": name, "short_name": short, "lang": current_request.language()}
    icon = {"src": asset("logo.svg"), "type": "image/svg+xml", "sizes": "any"}
    response = make_response(json.dumps({**_MANIFEST, **named, "icons": [icon]}, ensure_ascii=False))
    response.mimetype = "application/manifest+json"
    response.headers["Cache-Control"] = "no-cache"
    return response


@pages.get("/sw.js")
def worker() -> Response:
    """Return the service worker, whose text changes with every file of the app shell."""
    current_request.stay_anonymous()
    shell = json.dumps(["/offline", *map(asset, _SHELL)])
    response = make_response(f"const SHELL = {shell};\n{_worker_text()}")
    response.mimetype = "text/javascript"
    response.headers["Cache-Control"] = "no-cache"
    return response


@pages.get("/offline")
def shelf() -> str:
    """Show the offline page; it has no personal data, and the browser adds the stored copies."""
    current_request.stay_anonymous()
    return render_template("offline.html")


@pages.get("/articles/<int:article_id>/offline")
def copy(article_id: int) -> Response:
    """Show an article for offline storage: no forms or tokens, labelled with its owner."""
    actor = current_request.actor()
    (article, html, _), _ = current_request.services().catalogue.reading(
        actor, article_id, current_request.language()
    )
    page = render_template(
        "offline_copy.html",
        article=article,
        body=Markup(html),  # noqa: S704 - rendered and sanitized by our own renderer
        now=current_request.now(),
    )
    response = forms.private(page)
    # The service worker stores only responses with this header.
    response.headers["Offline-Copy"] = str(actor.id)
    response.headers["Offline-Title"] = quote(article["title"])
    return response


@cache
def _worker_text() -> str:
    return (Path(__file__).parents[2] / "static" / "sw.js").read_text(encoding="utf-8")
