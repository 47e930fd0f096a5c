"""How both languages of the documentation are built: ``make docs``.

One folder for each language, one configuration. Warnings are errors, unknown names too, and nothing comes from
another host.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "mks_hardening"
author = "The mks_hardening developers"
release = version = importlib.metadata.version("mks-hardening")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "api_examples",
    "inline_attributes",
    "japanese_search",
    "public_names",
    "search_words",
    "short_signatures",
    "source_order",
    "toctree_captions",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["reference/overview/*"]  # parts of pages in reference/api
locale_dirs = ["../locale"]
nitpicky = True
show_warning_types = True

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
add_module_names = False  # the title says it
toc_object_entries_show_parents = "hide"

templates_path = ["_templates"]
html_theme = "furo"
html_title = "mks_hardening"
# The pictures of the example are made by its tests and shown in its README, too.
_PICTURES = Path(__file__).parents[1] / "examples" / "knowledge_system" / "pictures"
html_static_path = ["_static", *([str(_PICTURES)] if _PICTURES.is_dir() else [])]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {
    "**": [
        f"sidebar/{part}.html"
        for part in ("brand", "language", "search", "scroll-start", "navigation", "scroll-end")
    ]
}
copybutton_exclude = ".linenos, .gp, .go"
