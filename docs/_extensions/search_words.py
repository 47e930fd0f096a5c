"""Search finds a page by words that readers use and the page does not.

``docs/search_words.toml`` lists them. They become main entries of the index, which Sphinx's search puts first and
which the general index has too.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_WORDS = Path(__file__).parents[1] / "search_words.toml"


def _load(app: Sphinx, _config: object) -> None:
    words = tomllib.loads(_WORDS.read_text(encoding="utf-8")).get(app.config.language, {})
    app.search_words = words  # type: ignore[attr-defined]


def _outdated(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """Read the pages again whose words have changed."""
    words: dict[str, list[str]] = app.search_words  # type: ignore[attr-defined]
    before: dict[str, list[str]] = getattr(env, "search_words", {})
    env.search_words = words  # type: ignore[attr-defined]
    return [page for page in words | before if words.get(page) != before.get(page) and page in env.found_docs]


def _add(app: Sphinx, doctree: nodes.document) -> None:
    words: list[str] = app.search_words.get(app.env.docname, [])  # type: ignore[attr-defined]
    section = doctree.next_node(nodes.section)
    if words and section is not None:
        target = section["ids"][0]
        section.insert(1, addnodes.index(entries=[("single", word, target, "main", None) for word in words]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the words to each page when it has been read."""
    app.connect("config-inited", _load)
    app.connect("env-get-outdated", _outdated)
    app.connect("doctree-read", _add)
    return {"parallel_read_safe": True}
