"""Administrator page of the caches: figures of the application's cache, emptying it, and purging the CDN."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.operations.metric_counts import MetricCounts
from knowledge_system.web import article_changes, current_request, forms

pages = Blueprint("caches", __name__, url_prefix="/admin/cache")


@pages.get("")
def showing() -> Response:
    """Show the figures of the last day and the forms."""
    return forms.private(_page())


@pages.post("/empty")
def emptying() -> Response:
    """Invalidate every cached article and list."""
    forms.read({})
    done = article_changes.empty_cache()
    return redirect(f"/admin/cache?done={'cache-emptied' if done else 'cache-later'}", 303)


@pages.post("/cdn")
def purging() -> Response:
    """Purge addresses, tags or everything from the CDN."""
    try:
        values = forms.read(fields.PURGE_FORM)
        article_changes.purge_cdn(
            values["urls"].split(), values["tags"].split(), everything=values["everything"] == "on"
        )
    except Problem as problem:
        return forms.shown_again(problem, _page)
    return redirect("/admin/cache?done=cdn-purged", 303)


def _page(problem: Problem | None = None) -> str:
    services = current_request.services()
    services.samples.write()  # includes the current minute of this process
    samples = services.samples.read(last=timedelta(hours=24))
    return render_template(
        "cache.html",
        section="admin",
        total=MetricCounts.total(counts for _, counts in samples),
        own=services.cache.stats() if hasattr(services.cache, "stats") else None,
        cdn=services.cdn is not None,
        typed={name: forms.retyped(name) for name in fields.PURGE_FORM},
        **forms.problem_context(problem),
    )
