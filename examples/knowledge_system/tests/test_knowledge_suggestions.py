"""Tags that are suggested while one types, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from knowledge_browser import says, sign_in
from testbed.polling import wait_until

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

OFFERED = ".suggestions button"
SLOW = re.compile(r"/api/tags\?q=%E9%A4%8A$")


@pytest.fixture
def page(shared_demo: Any, open_page: Callable[..., Any]) -> Any:
    opened = open_page()
    sign_in(opened, shared_demo.url, "yamamoto")
    opened.goto(f"{shared_demo.url}/articles/new")
    if opened.locator("[data-draft-drop]").is_visible():  # another test of the same person left it
        opened.click("[data-draft-drop]")
        opened.wait_for_selector("[data-draft-note]", state="hidden")
    opened.route("**/api/drafts/**", lambda route: route.abort())
    opened.goto(f"{shared_demo.url}/articles/new")
    return opened


def typed(page: Any, text: str) -> None:
    page.focus("#tags")
    page.keyboard.insert_text(text)


def test_what_is_begun_is_offered_and_taken_by_click_and_key(page: Any) -> None:
    assert page.locator(OFFERED).count() == 0
    typed(page, "養")
    says(page, OFFERED, "養生 (")
    assert page.locator(".suggestions").get_attribute("aria-label").startswith("タグ")
    page.click(f"{OFFERED}:has-text('養生')")
    assert page.input_value("#tags") == "養生、"
    assert page.evaluate("document.activeElement.id") == "tags"
    assert page.locator(OFFERED).count() == 0
    says(page, "[data-draft-note]", "まだ保存されていません")  # a draft knows of what was taken

    # Only the last word is asked about, and the others stay; with keys as with the mouse.
    page.fill("#tags", "養生、点")
    says(page, OFFERED, "点検 (")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.suggestions button')")
    chosen = page.evaluate("document.activeElement.textContent").rpartition(" (")[0]
    page.keyboard.press("Enter")
    assert page.input_value("#tags") == f"養生、{chosen}、"


def test_nothing_begun_offers_nothing(page: Any) -> None:
    typed(page, "養")
    says(page, OFFERED, "養生 (")
    page.fill("#tags", "養、")
    wait_until(lambda: page.locator(OFFERED).count() == 0)
    page.fill("#tags", "養")
    says(page, OFFERED, "養生 (")
    page.fill("#tags", "どこにもない")
    wait_until(lambda: page.locator(OFFERED).count() == 0)


def test_an_answer_that_comes_late_changes_nothing(page: Any) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route(SLOW, hold)
    typed(page, "養")
    wait_until(lambda: page.evaluate("1") and held)
    page.fill("#tags", "点")
    says(page, OFFERED, "点検 (")
    with page.expect_response(SLOW):
        held[0].fulfill(json={"items": [{"name": "遅れた答え", "articles": 3}]})
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert "遅れた答え" not in page.inner_text(".suggestions")


def test_a_field_without_suggestions_is_still_a_field(page: Any, shared_demo: Any) -> None:
    """Refused, gone or slow: what is typed stays, nothing is said, nothing breaks."""
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    for answer in ({"status": 429}, {"status": 500, "body": "x"}, {"status": 200, "body": "not json"}):
        page.unroute_all()
        page.route("**/api/tags*", lambda route, *, answer=answer: route.fulfill(**answer))
        with page.expect_response("**/api/tags*"):
            page.fill("#tags", f"養{answer['status']}")
        assert page.locator(OFFERED).count() == 0
    page.unroute_all()
    page.route("**/api/tags*", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.fill("#tags", "養生")
    assert page.input_value("#tags") == "養生"
    assert page.locator(OFFERED).count() == 0
    assert said == []
