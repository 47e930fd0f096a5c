"""Protocols are shown without the signature that Python gives them: nobody calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _none(
    _app: Sphinx, what: str, _name: str, item: object, _options: object, _signature: str, returns: str
) -> tuple[str, str] | None:
    return ("", returns) if what == "class" and getattr(item, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at signatures before they are written."""
    app.connect("autodoc-process-signature", _none)
    return {"parallel_read_safe": True}
