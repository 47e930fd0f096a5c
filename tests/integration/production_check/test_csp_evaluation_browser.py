"""The table of the evaluator of policies, judged by a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from csp_pages import CASES, SANDBOXED, Case
from tables import faulty_rows
from testbed.polling import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.chromium]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LISTEN = """window.seen = []; document.addEventListener("securitypolicyviolation",
    event => event.disposition === "enforce" && window.seen.push([event.effectiveDirective, event.blockedURI]))"""
SUBMIT = "for (const form of document.forms) form.submit()"
SETTLE = "new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))"


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
    ):
        yield browser


class Tab:
    """A tab that shows pages without any network.

    Args:
        browser: the browser.

    Attributes:
        page: what Playwright opens.
        led_to: addresses that the page led to; it stays where it is.
    """

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_page()
        self.led_to: list[str] = []
        self._shown = Case((), "", frozenset())
        self.page.route("**/*", self._answer)
        self.page.add_init_script(LISTEN)

    def show(self, case: Case) -> None:
        self._shown = case
        self.page.goto(case.url)

    def violations(self) -> set[tuple[str, str]]:
        self.page.evaluate(SETTLE)
        found = self.page.evaluate("window.seen")
        return {(name, source.partition("?")[0] if "://" in source else source) for name, source in found}

    def _answer(self, route: Any) -> None:
        request, case = route.request, self._shown
        if request.url == case.url:
            fields = {"Content-Security-Policy": ", ".join(case.policies)} if case.policies else {}
            fields["Content-Type"] = "text/html; charset=utf-8"
            route.fulfill(status=200, headers=fields, body=case.html)
        elif request.is_navigation_request() and request.frame == self.page.main_frame:
            self.led_to.append(request.url)
            route.fulfill(status=204)
        else:
            route.fulfill(status=200, headers={"Access-Control-Allow-Origin": "*"}, body="")


def _wrong(tab: Tab, case: Case) -> object:
    # Of an address without a host, a browser names the scheme alone.
    expected = {(name, "data" if source.startswith("data:") else source) for name, source in case.blocked}
    tab.show(case)
    tab.page.evaluate(SUBMIT)
    wait_until(lambda: tab.violations() >= expected, timeout=30, what=f"what is blocked: {expected}")
    return tab.violations() ^ expected


@pytest.mark.timeout(600)
def test_a_browser_judges_the_pages_so(browser: Any) -> None:
    tab = Tab(browser)
    assert faulty_rows(CASES, lambda case: _wrong(tab, case)) == {}


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("forms", [True, False])
def test_a_browser_runs_and_sends_nothing_in_a_sandbox_without_permission(
    browser: Any, *, scripts: bool, forms: bool
) -> None:
    policy = " ".join(["sandbox", *["allow-scripts"] * scripts, *["allow-forms"] * forms])
    tab, said = Tab(browser), list[str]()
    tab.page.on("console", lambda message: said.append(message.text))
    tab.show(Case((policy,), SANDBOXED, frozenset()))
    assert (tab.page.title() == "ran") == scripts
    said.clear()
    tab.page.click("button")
    wait_until(
        lambda: tab.page.evaluate("1") and (tab.led_to or said), timeout=30, what="the form, sent or refused"
    )
    assert (tab.led_to == ["https://shop.example.jp/send"]) == forms
