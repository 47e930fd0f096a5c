"""The lists of the first page get the name of their section, so that the navigation shows four groups of pages.

A caption in the source would stand inside a fence, which is the same in both languages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _name(app: Sphinx, doctree: nodes.document) -> None:
    if app.env.docname != app.config.root_doc:
        return
    for toctree in doctree.findall(addnodes.toctree):
        section = toctree.parent
        while section is not None and not isinstance(section, nodes.section):
            section = section.parent
        if section is not None and not toctree.get("caption"):
            title = section.next_node(nodes.title)
            toctree["caption"] = toctree["rawcaption"] = re.split("[::]", title.astext() if title else "")[0]


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at the first page when it has been read."""
    app.connect("doctree-read", _name)
    return {"parallel_read_safe": True}
