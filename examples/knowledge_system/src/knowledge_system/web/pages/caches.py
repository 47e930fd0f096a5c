"""Administrator page of the caches: figures of the application's cache, emptying it, and purging the CDN."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.operations.metric_counts import MetricCounts
from knowledge_system.web import article_changes, current_request, forms

pages = Blueprint("caches", __name__, url_prefix="/admin/cache")


def _page(problem: Problem | None = None) -> str:
    services = current_request.services()
    services.samples.write()  # includes the current minute of this process
    samples = services.samples.read(last=timedelta(hours=24))
    return forms.render(
        "cache.html",
        problem,
        section="admin",
        total=MetricCounts.total(counts for _, counts in samples),
        own=services.cache.stats() if hasattr(services.cache, "stats") else None,
        cdn=services.cdn is not None,
        typed={name: forms.retyped(name) for name in fields.PURGE_FORM},
    )


@pages.get("")
def showing() -> Response:
    """Show the figures of the last day and the forms."""
    return forms.private(_page())


@pages.post("/empty")
@forms.form({})
def emptying() -> str:
    """Invalidate every cached article and list."""
    return f"/admin/cache?done={'cache-emptied' if article_changes.empty_cache() else 'cache-later'}"


@pages.post("/cdn")
@forms.form(fields.PURGE_FORM, page=_page)
def purging(*, urls: str, tags: str, everything: str) -> str:
    """Purge addresses, tags or everything from the CDN."""
    article_changes.purge_cdn(urls.split(), tags.split(), everything=everything == "on")
    return "/admin/cache?done=cdn-purged"
