"""The table of the evaluator of policies, judged by a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from csp_pages import CASES, FILES, SANDBOXED, SITE, Case
from mks_check.production_check.csp_evaluation import evaluate_page
from tables import faulty_rows
from testbed.polling import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.chromium]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LISTEN = """window.seen = []; document.addEventListener("securitypolicyviolation",
    event => event.disposition === "enforce" && window.seen.push([event.effectiveDirective, event.blockedURI]))"""
SUBMIT = "for (const form of document.forms) form.submit()"
CLICK = """for (const link of document.querySelectorAll("a[href^='javascript:' i]")) link.click()"""
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
    tab.page.evaluate(CLICK)
    tab.page.evaluate(SUBMIT)
    wait_until(lambda: tab.violations() >= expected, timeout=30, what=f"what is blocked: {expected}")
    return tab.violations() ^ expected


@pytest.mark.timeout(600)
def test_a_browser_judges_the_pages_so(browser: Any) -> None:
    tab = Tab(browser)
    assert faulty_rows(CASES, lambda case: _wrong(tab, case)) == {}


# Of frames of other hosts, a browser names the origin alone. What an object is, no page tells.
_SNIPPETS = """\
<script>window.a = 1</script>
<script nonce=abc>2</script>
<script src=/a/s.js nonce=abc></script>
<script src=//cdn.example/x.js></script>
<script type=module src=/m.js></script>
<b onclick=go()>x</b>
<style>p {}</style>
<style nonce=abc>b {}</style>
<style>@import '//cdn.example/i.css'; p { background: url(/b.png) }</style><p>x</p>
<link rel=stylesheet href=//a.cdn.example/x/s.css>
<link rel=preload href=//cdn.example/f.woff2 as=font crossorigin>
<i style='color: red'>x</i>
<img src=/a/i.png>
<img src=data:image/gif;base64,R0lGODlhAQABAAAAACw=>
<iframe src=/a/f></iframe>
<video src=/v.mp4 poster=//cdn.example/p.png></video>
<a href='javascript:go()'>x</a>
<form action=/send></form>
<form action=//cdn.example/y></form>
<base href=/base/>
<meta http-equiv=Content-Security-Policy content="img-src https:; script-src-attr *">""".splitlines()
_DIRECTIVES = (
    "default-src",
    "script-src",
    "script-src-elem",
    "script-src-attr",
    "style-src",
    "style-src-elem",
    "style-src-attr",
    "img-src",
    "font-src",
    "media-src",
    "object-src",
    "frame-src",
    "child-src",
    "form-action",
    "base-uri",
)
_SOURCES = (
    "'self'",
    "'none'",
    "*",
    "https:",
    "data:",
    "cdn.example",
    "https://*.cdn.example/x/",
    "/a/",
    "http://cdn.example",
    "*.example",
    "cdn.example:443",
    "shop.example.jp/a/",
    "'unsafe-inline'",
    "'unsafe-hashes'",
    "'unsafe-eval'",
    "'nonce-abc'",
    "'strict-dynamic'",
    "'sha256-5KYv+PUboo5h+0+YAtGRPbwv5d/QxzHslP4YGnUaxRw='",
)
_policies = st.dictionaries(
    st.sampled_from(_DIRECTIVES), st.lists(st.sampled_from(_SOURCES), max_size=4), min_size=1, max_size=4
).map(lambda policy: "; ".join(" ".join((name, *sources)) for name, sources in policy.items()))


@pytest.mark.timeout(600)
def test_a_browser_judges_generated_pages_so(browser: Any) -> None:
    tab = Tab(browser)

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.explicit, Phase.generate],
    )
    @given(
        policies=st.lists(_policies, min_size=1, max_size=2),
        parts=st.lists(st.sampled_from(_SNIPPETS), min_size=1, max_size=8, unique=True),
    )
    def judge(policies: list[str], parts: list[str]) -> None:
        html = f"<!doctype html><title>page</title>{''.join(parts)}"
        found = evaluate_page(policies, SITE, html).blocked
        case = Case(tuple(policies), html, frozenset((each.directive, each.source) for each in found))
        assert _wrong(tab, case) == set()

    judge()


_USED = """(async () => {
    await new Promise(resolve => document.readyState === "complete" ? resolve() : addEventListener("load", resolve))
    return "ran" in window || getComputedStyle(document.documentElement).color === "rgb(1, 2, 3)"
})()"""


def _wrong_file(page: Any, row: tuple[str, int, str, dict[str, str], str]) -> object:
    element, status, kind, fields, expected = row
    bodies = {"link": "html { color: rgb(1, 2, 3) }", "script": "window.ran = 1"}
    body = bodies.get(element[1:].partition(" ")[0], "")

    def answer(route: Any) -> None:
        if route.request.url == SITE:
            html = f"<!doctype html><title>page</title>{element}"
            route.fulfill(status=200, headers={"Content-Type": "text/html"}, body=html)
        else:
            given = {**({"Content-Type": kind} if kind else {}), **fields}
            route.fulfill(status=status, headers=given, body=body)

    page.route("**/*", answer)
    page.goto(SITE)
    used = page.evaluate(_USED) if body else not page.frames[-1].url.startswith("chrome-error:")
    page.unroute("**/*")
    # In a frame, the page of an error is shown.
    return used == (bool(expected) and bool(body or status == 200)) and (used, page.frames[-1].url)


@pytest.mark.timeout(600)
def test_a_browser_judges_files_so(browser: Any) -> None:
    page = browser.new_page()
    assert faulty_rows(FILES, lambda row: _wrong_file(page, row)) == {}


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
