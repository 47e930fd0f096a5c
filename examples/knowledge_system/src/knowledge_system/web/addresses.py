"""One page has one address: numbers of decimal ASCII digits, one slash at the beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request
from werkzeug.routing import IntegerConverter

from knowledge_system.domain.problems import Problem

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["install"]


class AsciiInteger(IntegerConverter):
    """A digit of a regular expression is one of any script; an id has only these ten, and no sign."""

    regex = "(?:0|[1-9][0-9]{0,9})"


def install(app: Flask) -> None:
    """Let ``<int:...>`` take nothing else, and no path begin with two slashes; before any rule is added."""
    app.url_map.converters["int"] = AsciiInteger
    app.before_request(_check)


def _check() -> None:
    # Flask drops all but one; whoever decides by path in front of it would judge another than is answered.
    if request.environ.get("PATH_INFO", "").startswith("//"):
        raise Problem("not-found")
