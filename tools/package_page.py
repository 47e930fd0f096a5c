"""Metadata for the package page: its URLs, and the README with links that work there.

The source tree contains no public address. A publisher sets the address at build time:

    PROJECT_URL=https://host/group/mks_hardening PROJECT_FILES_URL=https://host/group/mks_hardening/blob/v0.1.0

Links from the README to files then point there. Otherwise the page shows the names of the files in the source
archive instead of links, so that it contains no dead link.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_PAGES = {
    "Documentation": "docs/en/index.md",
    "Changelog": "CHANGELOG.md",
    "Security": "SECURITY.md",
}


class PackagePage(MetadataHookInterface):
    """Metadata hook that hatchling calls for the wheel, the source archive and editable installations."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README and the URLs."""
        home, files = (os.environ.get(name, "").rstrip("/") for name in ("PROJECT_URL", "PROJECT_FILES_URL"))
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": page(text, files)}
        metadata["urls"] = urls(home, files)


def page(readme: str, files: str) -> str:
    """Return the README with absolute links, or with file names instead of links that would be dead."""

    def lead(found: re.Match[str]) -> str:
        words, path, anchor = found[1], found[2], found[3] or ""
        return f"[{words}]({files}/{path}{anchor})" if files else f"{words} (`{path}`)"

    linked = _LINK.sub(lead, readme)
    return linked if files else f"{linked}\nFiles in brackets are in the source archive of this package.\n"


def urls(home: str, files: str) -> dict[str, str]:
    """Return the project URLs by name; empty without a public address."""
    found = {"Homepage": home, "Source": home} if home else {}
    return found | ({name: f"{files}/{path}" for name, path in _PAGES.items()} if files else {})
