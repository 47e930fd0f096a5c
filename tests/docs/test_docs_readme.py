"""The READMEs say what runs: their code is that of docs/snippets, it runs, and what comes out is what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "docs" / "snippets"
SHOWN = sorted((SNIPPETS / "readme").glob("*.py"))
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
EXTRA = re.compile(r"^Extra `(\w+)`.* <!-- docs/snippets/readme/(\w+\.py) -->$", re.MULTILINE)
# Runs a program in an environment that seems to hold one extra: every other package is missing.
ALONE = """
import importlib.util, runpy, sys
from importlib.metadata import distribution, packages_distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

def closure(extra):
    waiting, found = [f"mks-hardening[{extra}]"], set()
    while waiting:
        wanted = Requirement(waiting.pop())
        name = canonicalize_name(wanted.name)
        if name in found and not wanted.extras:
            continue
        found.add(name)
        for line in distribution(name).requires or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in wanted.extras or {""}):
                waiting.append(f"{inner.name}[{','.join(inner.extras)}]" if inner.extras else inner.name)
    return found

allowed = closure(sys.argv[1])
homes = packages_distributions()

def gone(name):
    top = name.partition(".")[0]
    return top in homes and not {canonicalize_name(home) for home in homes[top]} & allowed

class Gone:
    def find_spec(self, name, path=None, target=None):
        if gone(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

look = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if gone(name) else look(name, package)

for name in [name for name in sys.modules if name.partition(".")[0] in homes]:
    del sys.modules[name]
sys.meta_path.insert(0, Gone())
runpy.run_path(sys.argv[2], run_name="__main__")
"""
FENCE = re.compile(r"<!-- docs/snippets/readme/(\w+\.py) -->\n```python\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.skipif(not SHOWN, reason="the documentation is not part of the wheel")


def _run(path: Path, folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *(options or ("-W", "error")), str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_readme_shows_the_snippets_as_they_are(readme: Path) -> None:
    text = readme.read_text("utf-8")
    shown = dict(FENCE.findall(text))
    assert shown == {path.name: path.read_text("utf-8") for path in SHOWN}
    assert text.count("```python") == len(shown)


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_what_the_readme_shows_comes_out(path: Path, tmp_path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    code = [line for line in lines if line and not line.startswith("# -> ")]
    promised = "\n".join(line.removeprefix("# -> ") for line in lines if line.startswith("# -> "))
    assert promised
    assert len(code) <= 10
    came = _run(path, tmp_path).rstrip()
    assert re.fullmatch(".*".join(map(re.escape, promised.split("..."))), came), came


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_each_block_names_its_extra(readme: Path) -> None:
    named = {name: extra for extra, name in EXTRA.findall(readme.read_text("utf-8"))}
    assert named.keys() == {path.name for path in SHOWN}


@pytest.mark.parametrize(("extra", "name"), EXTRA.findall(READMES[0].read_text("utf-8")) if SHOWN else [])
def test_a_block_needs_no_more_than_the_extra_it_names(extra: str, name: str, tmp_path: Path) -> None:
    _run(SNIPPETS / "readme" / name, tmp_path, "-c", ALONE, extra)


@pytest.mark.parametrize("path", sorted(SNIPPETS.glob("*.py")), ids=lambda path: path.stem)
def test_every_snippet_runs_without_warnings(path: Path, tmp_path: Path) -> None:
    _run(path, tmp_path)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_links_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", readme.read_text("utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_first_screen_has_the_commands(readme: Path) -> None:
    lines = readme.read_text("utf-8").splitlines()
    first_screen = "\n".join(lines[:24])
    assert "pip install" in first_screen
    assert "git clone" in first_screen
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert len(lines) <= 150
