"""The docstring of a property is a sentence, also when it holds a colon.

Napoleon takes what stands before the first colon for a type. A colon in front leaves the type empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_BEFORE_NAPOLEON = 400


def _no_type(_app: Sphinx, what: str, _name: str, _item: object, _options: object, lines: list[str]) -> None:
    if what in {"property", "attribute"} and lines and ": " in lines[0]:
        lines[0] = f": {lines[0]}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at docstrings before napoleon does."""
    app.connect("autodoc-process-docstring", _no_type, priority=_BEFORE_NAPOLEON)
    return {"parallel_read_safe": True}
