"""The README says what runs: its code is that of docs/snippets, and every snippet runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SNIPPETS = sorted((ROOT / "docs" / "snippets").glob("*.py"))
FENCE = re.compile(r"<!-- docs/snippets/(\w+\.py) -->\n```python\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.skipif(not README.exists(), reason="the documentation is not part of the wheel")


def test_the_readme_shows_the_snippets_as_they_are() -> None:
    text = README.read_text("utf-8")
    shown = dict(FENCE.findall(text))
    assert shown == {path.name: path.read_text("utf-8") for path in SNIPPETS}
    assert text.count("```python") == len(shown)


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_every_snippet_runs_without_warnings(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text("utf-8")):
        assert (ROOT / target).exists(), target


def test_the_first_screen_has_the_two_commands() -> None:
    lines = README.read_text("utf-8").splitlines()
    first_screen = "\n".join(lines[:24])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert len(lines) <= 220
