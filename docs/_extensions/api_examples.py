"""Examples of the reference: a piece of ``docs/snippets/api/MODULE.pycon`` follows each docstring.

In such a file ``# Name`` begins the example of a name. What follows is typed into a fresh interpreter by the tests.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = Path(__file__).parents[1] / "snippets" / "api"
_HEADING = re.compile(r"^# (\w+)\n", re.MULTILINE)


def full_name(module: str) -> str:
    """The name under which a documented module is imported."""
    return module if module == "mks_check" else f"mks_hardening.{module}"


def examples(module: str) -> dict[str, str]:
    """The examples of a module, by name, in the order of the file."""
    file = FOLDER / f"{module}.pycon"
    if not file.exists():
        return {}
    _, *parts = _HEADING.split(file.read_text("utf-8"))
    return {name: text.strip("\n") + "\n" for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _add(_app: Sphinx, _what: str, name: str, _item: object, _options: object, lines: list[str]) -> None:
    module, _, member = name.removeprefix("mks_hardening.").partition(".")
    if text := examples(module).get(member):
        lines += ["", ".. code-block:: pycon", "", *(f"   {line}".rstrip() for line in text.splitlines()), ""]


def setup(app: Sphinx) -> dict[str, Any]:
    """Write below what napoleon has made of a docstring."""
    app.connect("autodoc-process-docstring", _add, priority=900)
    return {"parallel_read_safe": True}
