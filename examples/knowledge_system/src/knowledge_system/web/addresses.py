"""Canonical URLs: ids in ASCII decimal digits, a single leading slash."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.routing import IntegerConverter

from knowledge_system.domain.problems import Problem


class AsciiInteger(IntegerConverter):
    """Matches ids in ASCII digits without a sign; the regular expression's own digit class matches any script."""

    regex = "(?:0|[1-9][0-9]{0,9})"


def install(app: Flask) -> None:
    """Restrict ``<int:...>`` and reject paths with two leading slashes; must run before any route is added."""
    app.url_map.converters["int"] = AsciiInteger
    app.before_request(_check)


def _check() -> None:
    # Flask collapses them: a proxy that decides by path would check another path than the one served.
    if request.environ.get("PATH_INFO", "").startswith("//"):
        raise Problem("not-found")
