"""A real browser for the pages of the example application, and checks for every visit."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from knowledge_system.settings import DEMO_PASSWORD

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note for ``open_page`` whether the test failed."""
    report = yield
    item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Return Playwright; only one instance per thread is possible."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(driver: Any, chromium_path: str) -> Iterator[Any]:
    browser = driver.chromium.launch(executable_path=chromium_path, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return the directory of screenshots; ``MKS_SCREENSHOTS`` selects one to keep."""
    folder = Path(os.environ.get("MKS_SCREENSHOTS") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def keep_picture(pictures: Path) -> Callable[..., None]:
    """Save a screenshot to look at, if ``MKS_SCREENSHOTS`` is set: one costs as much as several steps."""

    def keep(page: Any, name: str, **options: Any) -> None:
        if os.environ.get("MKS_SCREENSHOTS"):
            page.screenshot(path=pictures / f"{name}.png", **options)

    return keep


@pytest.fixture
def open_page(chromium: Any, pictures: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Open pages; if the test fails, save a screenshot of each."""
    contexts = []
    said: list[str] = []

    def open_one(**options: Any) -> Any:
        usual = {"locale": "ja-JP", "viewport": {"width": 1280, "height": 900}}
        context = chromium.new_context(ignore_https_errors=True, **{**usual, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console",
            lambda message: said.append(message.text) if "Content Security" in message.text else None,
        )
        return page

    yield open_one
    if request.node.stash[_FAILED]:
        files = save_open_pages(contexts, pictures)
        request.node.add_report_section("teardown", "screenshots", "\n".join(map(str, files)))
    for context in contexts:
        context.close()
    assert said == []


def save_open_pages(contexts: Iterable[Any], folder: Path) -> list[Path]:
    """Save a screenshot of each open page; return the files."""
    from playwright.sync_api import Error

    saved = []
    for number, page in enumerate(page for context in contexts for page in context.pages):
        with contextlib.suppress(Error):  # a page that has crashed has none
            page.screenshot(path=folder / f"failed-{number}.png", timeout=10_000)
            saved.append(folder / f"failed-{number}.png")
    return saved


def says(page: Any, selector: str, text: str) -> None:
    """Wait until this part of the page contains the text."""
    page.locator(f"{selector}:has-text({json.dumps(text, ensure_ascii=False)})").first.wait_for()


def sign_in(page: Any, url: str, username: str) -> None:
    page.goto(f"{url}/sign-in?next=/articles")
    page.fill("#username", username)
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_url("**/articles")


def sign_out(page: Any) -> None:
    page.click(".person summary")
    page.click("text=サインアウト")


def fits(page: Any) -> bool:
    """Return whether the page has no horizontal overflow."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    return wide


# Links inside a sentence are exempt (WCAG 2.5.5), and what is hidden cannot be touched.
SMALL = """
[...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter((part) => part.checkVisibility() && !part.closest("p:not(.meta, .kicker), td, dd, .skip, .hint"))
  .filter((part) => !part.matches("[type=checkbox], [type=radio], .skip"))
  .filter((part) => part.getBoundingClientRect().height < 43.5)
  .map((part) => part.outerHTML.slice(0, 120))
"""
