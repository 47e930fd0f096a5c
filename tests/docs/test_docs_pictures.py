"""The pictures of the documentation show the measurements that are stored beside them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "outage.py"
PICTURES = ROOT / "docs" / "pictures"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not part of the wheel")


def test_the_picture_of_the_outage_shows_the_last_measurement() -> None:
    script = runpy.run_path(str(SCRIPT))
    runs = script["last_runs"]()
    for language in ("en", "ja"):
        assert script["picture_of"](language).read_text("utf-8") == script["draw"](runs, language)


def test_no_response_of_this_package_failed_while_redis_hung() -> None:
    script = runpy.run_path(str(SCRIPT))
    runs = script["last_runs"]()
    assert all(response.status == 200 for response in runs[script["OURS"]])
    assert sum(response.status >= 500 for response in runs[script["PEERS"]]) > 0


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("source", sorted(PICTURES.glob("*.dot")), ids=lambda source: source.stem)
def test_a_diagram_was_drawn_from_the_present_source(source: Path, language: str) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "draw_pictures.py"))
    assert tool["is_current"](source, language), "make generated"
    page = tool["picture_of"](source, language)
    shown = "".join(file.read_text("utf-8") for file in (ROOT / "docs" / language).rglob("*.md"))
    assert f"pictures/{page.name}" in shown
