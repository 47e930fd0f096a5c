"""Every page of the documentation is done as it is written: its files, its commands, their output."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from testbed import doc_pages, package_map

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "docs" / "en"
PAGES = [
    page
    for page in sorted(ENGLISH.rglob("*.md"))
    if any(isinstance(step, doc_pages.Command) for step in doc_pages.steps(page))
]
HOW_TOS = [
    page for page in sorted((ENGLISH / "how-to").rglob("*.md")) if page.parent.name != "runbooks"
]  # runbooks have an order of their own
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LONGEST = 800
# What a reader does once, before the page begins to differ from others.
INSTALLATION = re.compile(r"python3 -m venv|\.venv/bin/pip install")

pytestmark = pytest.mark.skipif(not PAGES, reason="the documentation is not part of the wheel")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ENGLISH)))
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    # The one file of the example that a page reads; its tests are not the reader's.
    sample = Path("examples", "knowledge_system", "deploy.toml")
    (tmp_path / sample).parent.mkdir(parents=True)
    (tmp_path / sample).symlink_to(ROOT / sample)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MKS_", "PYTHON"))}
    doc_pages.follow(page, tmp_path, environment=clean, skip=INSTALLATION)


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: str(page.relative_to(ENGLISH)))
def test_a_how_to_is_short_and_ends_with_a_command_that_shows_it_worked(page: Path) -> None:
    text = page.read_text("utf-8").rstrip()
    assert len(FENCE.sub("", text).split()) <= LONGEST
    last = FENCE.findall(text)[-1]
    assert last.startswith("```console\n$ ")
    assert text.endswith(last), "the last thing on the page is the command"
    assert not last.splitlines()[-2].startswith("$ "), "it shows what comes out"


@pytest.mark.parametrize("area", package_map.AREAS)
def test_the_page_of_an_area_says_why_when_not_and_what_happens_when_it_breaks(area: str) -> None:
    text = (ENGLISH / "explanation" / f"{area}.md").read_text("utf-8")
    for question in ("why", "when-not-to-use-this", "what-happens-when-it-breaks"):
        assert len(re.findall(rf"^\({area}-{question}\)=\n## .+\n\n\S", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_reasons_stand_in_the_order_of_the_drawing(language: str) -> None:
    page = (ROOT / "docs" / language / "explanation" / "architecture.md").read_text("utf-8")
    drawing = (ROOT / "docs" / "explanation" / "wrappers.svg").read_text("utf-8")  # made from the real stack
    drawn = re.findall(r">(\w+Middleware)<", drawing)
    assert re.findall(r"^\d+\. \*\*.+?[(（]`(\w+Middleware)`", page, re.MULTILINE) == drawn


@pytest.mark.parametrize("language", ["en", "ja"])
def test_each_test_that_the_page_of_defects_names_is_there(language: str) -> None:
    page = (ROOT / "docs" / language / "explanation" / "defects.md").read_text("utf-8")
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")}
    cases = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "corpus").rglob("*.jsonl"))
    named = re.findall(r"`(\w+\.py)(?:::(\w+)(?:\[([^\]]+)\])?)?`", page)
    assert len(named) > 100
    for file, name, case in named:
        assert file in texts, file
        assert re.search(rf"^ *(?:async def|def|class) {name}\b", texts[file], re.MULTILINE) or not name, name
        assert f'"{case}"' in cases or not case, case
