"""Methods are shown in the order of the source, although their classes say that they belong to the facade."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from api_examples import full_name
from public_names import MODULES
from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_plain = ModuleAnalyzer.for_module.__func__  # type: ignore[attr-defined]
_FACADES = {full_name(module) for module in MODULES}
_whole: set[str] = set()


def _for_module(kind: type[ModuleAnalyzer], name: str) -> ModuleAnalyzer:
    """The analyzer of a module; that of a facade knows the order of the names in the modules behind it."""
    analyzer: ModuleAnalyzer = _plain(kind, name)
    if name not in _FACADES or name in _whole:
        return analyzer
    _whole.add(name)
    analyzer.analyze()
    folders = getattr(importlib.import_module(name), "__path__", [])
    for part in pkgutil.walk_packages(folders, f"{name}."):
        behind: ModuleAnalyzer = _plain(kind, part.name)
        behind.analyze()
        first = len(analyzer.tagorder)
        analyzer.tagorder |= {member: first + place for member, place in behind.tagorder.items()}
    return analyzer


def setup(_: Sphinx) -> dict[str, Any]:
    """Take the place of Sphinx's own look-up."""
    ModuleAnalyzer.for_module = classmethod(_for_module)  # type: ignore[method-assign,assignment]
    return {"parallel_read_safe": True}
