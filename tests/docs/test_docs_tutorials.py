"""The tutorials as a newcomer does them: an empty folder, a new environment, the built wheel, a real browser."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from docs_wheelhouse import fill
from testbed import doc_pages

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "en" / "tutorial"
NAMES = sorted(page.stem for page in TUTORIAL.glob("*.md"))
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not NAMES, reason="the documentation is not part of the wheel"),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip may install: all that the pages name, and nothing from a network."""
    folder = tmp_path_factory.mktemp("wheels")
    fill(
        folder,
        "mks-hardening[logging,wsgi,flask,django,fastapi]",
        *("pyramid", "falcon", "uvicorn", "python-multipart"),
    )
    return folder


@pytest.fixture
def newcomer(wheels: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has set nothing; ``python3`` is the Python of this run."""
    pytest.importorskip("ensurepip", reason="the distribution's python3-venv is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_COMPILE": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.chromium
@pytest.mark.parametrize("name", NAMES)
def test_a_newcomer_gets_to_an_accepted_form_and_its_line_of_log(
    name: str, newcomer: dict[str, str], tmp_path: Path, chromium_path: str
) -> None:
    from playwright.sync_api import sync_playwright

    folder = tmp_path / "empty"
    folder.mkdir()
    seen: list[tuple[int, int, str]] = []

    def fill_in(url: str) -> None:
        with (
            sync_playwright() as playwright,
            playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
        ):
            page = browser.new_page()
            first = page.goto(url)
            page.fill("input[name=note]", "hello")
            with page.expect_navigation() as second:
                page.click("button")
            assert first is not None
            assert second.value is not None
            seen.append((first.status, second.value.status, page.inner_text("body")))

    doc_pages.follow(TUTORIAL / f"{name}.md", folder, environment=newcomer, visit=fill_in)
    [(first, second, text)] = seen
    assert (first, second) == (200, 200)
    assert text.startswith("saved 5 ")

    lines = [line for line in (folder / "app.log").read_text("utf-8").splitlines() if line.startswith("{")]
    records = [json.loads(line) for line in lines]
    posts = [record for record in records if record.get("method") == "POST"]
    assert [(post["status"], post.get("refused_by")) for post in posts] == [(200, None), (403, "csrf")]
    warned = [record for record in records if record["level"] == "WARNING" and "MKS_ENV" in record["message"]]
    assert len(warned) == 1
