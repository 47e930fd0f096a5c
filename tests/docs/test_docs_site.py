"""The documentation is built strictly: every kind of mistake stops it, and no public name is missing."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from testbed import package_map

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

pytestmark = [
    pytest.mark.skipif(not (DOCS / "conf.py").exists(), reason="the documentation is not part of the wheel"),
    pytest.mark.skipif(find_spec("sphinx") is None, reason="Sphinx is not installed"),
]

FINE = "# Page\n\n(a-part)=\n## Part\n\nSee {py:class}`~mks_hardening.events.CacheRead` and [the part](#a-part).\n"
INDEX = "# Index\n\n```{toctree}\npage\nevents\n```\n"
EVENTS = "# Events\n\n```{eval-rst}\n.. automodule:: mks_hardening.events\n   :members:\n```\n"


def _build(folder: Path, language: str = "en") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "-n", "-c", str(DOCS)),
            *("-d", str(folder / "cache"), "-D", f"language={language}"),
            *(str(folder / "source"), str(folder / "site")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def _site(folder: Path, **pages: str) -> Path:
    source = folder / "source"
    source.mkdir()
    for name, text in {"index": INDEX, "events": EVENTS, "page": FINE, **pages}.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_page_without_a_mistake_is_built(tmp_path: Path, language: str) -> None:
    done = _build(_site(tmp_path), language)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CacheRead" in (tmp_path / "site" / "page.html").read_text("utf-8")


MISTAKES = {
    "dead_link": "[gone](gone.md)",
    "dead_anchor": "[gone](#gone)",
    "missing_snippet": "```{literalinclude} gone.py\n```",
    "unknown_name": "{py:class}`~mks_hardening.events.Gone`",
    "missing_image": "![gone](gone.png)",
    "unknown_directive": "```{gone}\n```",
}


def test_each_mistake_and_a_page_that_nobody_leads_to_stop_the_build(tmp_path: Path) -> None:
    """All in one build: under ``-W`` each warning is an error, and all of them are reported."""
    pages = {name: f"# Page\n\n{mistake}\n" for name, mistake in MISTAKES.items()}
    index = INDEX.replace("events", "\n".join(["events", *pages]))
    done = _build(_site(tmp_path, **pages, index=index, orphan="# Nobody leads here\n"))
    assert done.returncode
    warned = re.findall(r"(\w+)\.md:.*WARNING", done.stderr)
    assert set(warned) == {*MISTAKES, "orphan"}, done.stderr


def test_every_public_module_has_its_page() -> None:
    pages = {file.name.removesuffix(".md") for file in (DOCS / "en" / "reference" / "api").glob("*.md")}
    public = {name.partition(".")[2] for name in package_map.public_modules()}
    adapters = {name for name in public if name.startswith("contrib.") and name.count(".") == 1}
    public = {name for name in public if "." not in name} | {name for name in adapters if "._" not in name}
    # The facade of facades, the folder of adapters, and two that are used without being imported.
    assert public - pages == {"", "contrib", "cli", "pytest_plugin"}


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first to ask builds both languages
def test_every_public_name_has_its_place(built_docs: Path) -> None:
    missing = []
    for page in sorted((built_docs / "en" / "reference" / "api").glob("*.html")):
        if page.stem == "index":
            continue
        ids = set(re.findall(r'id="([\w.]+)"', page.read_text("utf-8")))
        prefix = "" if page.stem == "mks_check" else "mks_hardening."
        module = importlib.import_module(f"{prefix}{page.stem}")
        # Names that two areas export are described once.
        elsewhere = {name for names in getattr(module, "_SHARED", {}).values() for name in names}
        missing += [
            f"{page.stem}.{name}"
            for name in module.__all__
            if name not in elsewhere
            if not any(identifier.endswith(f".{name}") for identifier in ids)
        ]
    assert missing == []


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first to ask builds both languages
def test_no_page_loads_anything_from_another_host(built_docs: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=\"(?:https?:)?//")
    for page in built_docs.rglob("*.html"):
        assert not loads.search(page.read_text("utf-8")), page
    for sheet in built_docs.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text("utf-8")), sheet


def test_words_are_listed_for_pages_that_exist() -> None:
    words = tomllib.loads((DOCS / "search_words.toml").read_text("utf-8"))
    assert words.keys() == {"en", "ja"}
    pages = [(language, page) for language, listed in words.items() for page in listed]
    assert [name for name in pages if not (DOCS / name[0] / f"{name[1]}.md").exists()] == []
    for language in words:
        listed = [word for page in words[language].values() for word in page]
        assert len(listed) == len({*listed}), "a word leads to one page"
