"""Applications from the package index, unedited: what works raw works hardened, with the settings of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import compatibility_page
from compatibility import NAMES, Served, described, walked

pytest_plugins = ["knowledge_browser"]
pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", NAMES)
def test_what_works_raw_works_hardened(name: str, chromium: Any, tmp_path: Path) -> None:
    application = described(name)

    def steps(mode: str, **options: Any) -> Any:
        served = Served(application, tmp_path / mode, **options)
        served.start()
        try:
            return walked(application, chromium, served.url, patience=5 if mode == "bare" else 30)
        finally:
            served.stop()

    raw = steps("raw", hardened=False)
    assert {step: result.reason for step, result in raw.items() if not result.works} == {}

    bare = steps("bare", hardened=True)
    hardened = steps("whole", hardened=True, settings=True) if application.needs_settings else bare
    assert {
        step: (result.reason, result.new(raw[step]))
        for step, result in hardened.items()
        if not result.is_whole(raw[step])
    } == {}
    assert list(hardened) == list(raw)

    published = compatibility_page.results().get(name, {})
    assert {step: bare[step].is_whole(raw[step]) for step in raw} == published.get("steps")


def test_the_page_shows_the_results_and_the_settings() -> None:
    for file, text in compatibility_page.pages().items():
        assert file.read_text("utf-8") == text, f"{file.name}: run `make compatibility`"
