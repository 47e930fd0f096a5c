"""Installable and readable without a network: what the server offers, and what a browser keeps of it for whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from knowledge_system.settings import DEMO_PASSWORD
from testbed.polling import wait_until


def test_the_shell_says_nothing_of_anybody(visit: Callable[..., Any], browser: Any) -> None:
    reader = visit("kobayashi")
    for path in ("/offline", "/sw.js", "/manifest.webmanifest"):
        seen, unknown = reader.get(path), browser.get(path)
        assert (seen.status_code, unknown.status_code) == (200, 200)
        text = seen.get_data(as_text=True)
        assert "csrf" not in text
        assert "小林" not in text
        assert "data-user" not in text
    browser.client.set_cookie("__Host-mks-session", "dead" * 10, domain="localhost", secure=True, path="/")
    assert browser.get("/sw.js").status_code == 200


def test_manifest_and_worker_are_what_browsers_ask_for(browser: Any) -> None:
    manifest = browser.get("/manifest.webmanifest")
    assert manifest.mimetype == "application/manifest+json"
    body = json.loads(manifest.get_data(as_text=True))
    assert body["display"] == "standalone"
    assert browser.get(body["icons"][0]["src"]).status_code == 200
    worker = browser.get("/sw.js")
    assert worker.mimetype == "text/javascript"
    assert worker.headers["Cache-Control"] == "no-cache"
    shell = json.loads(worker.get_data(as_text=True).partition("const SHELL = ")[2].partition(";\n")[0])
    assert [browser.get(path).status_code for path in shell] == [200] * 4
    policy = worker.headers["Content-Security-Policy"]
    assert "worker-src 'self'" in policy
    assert "manifest-src 'self'" in policy


def test_a_copy_says_whose_it_is_and_holds_no_token(
    app: Any, visit: Callable[..., Any], browser: Any
) -> None:
    copy = visit("kobayashi").get("/articles/1/offline")
    text = copy.get_data(as_text=True)
    assert copy.headers["Cache-Control"] == "no-store"
    assert copy.headers["Offline-Copy"].isdecimal()
    assert "控えです" in text
    assert "<form" not in text
    assert "<script" not in text
    assert "csrf" not in text
    assert visit("tanaka").get("/articles/1/offline").headers["Offline-Copy"] != copy.headers["Offline-Copy"]
    assert "Offline-Copy" not in browser.get("/articles/1/offline").headers
    assert browser.get("/articles/1/offline").status_code == 303
    for path in ("/articles/999999/offline", "/articles/0/offline", "/articles/１/offline"):
        assert visit("kobayashi").get(path).status_code == 404
    for path in ("/articles", "/articles/1", "/favourites", "/api/knowledge/1", "/account"):
        assert "Offline-Copy" not in visit("kobayashi").get(path).headers


@pytest.fixture
def page(chromium_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    # A worker is only loaded over a connection that the browser trusts; the authority of the demo it cannot know.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--ignore-certificate-errors"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        opened = browser.new_context(ignore_https_errors=True, locale="ja-JP").new_page()
        opened.set_default_timeout(60_000)
        said = list[str]()
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on(
            "console",
            lambda message: said.append(message.text) if "Content Security" in message.text else None,
        )
        yield opened
        browser.close()
    assert said == []


def ready(page: Any) -> None:
    page.wait_for_selector("html[data-offline=ready]", state="attached")
    wait_until(lambda: page.evaluate("navigator.serviceWorker.controller !== null"))


def sign_in(page: Any, url: str, username: str) -> None:
    page.goto(f"{url}/sign-in?next=/articles")
    page.fill("#username", username)
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_url("**/articles")
    ready(page)


def kept(page: Any) -> dict[str, list[str]]:
    """What the browser keeps: paths by the name of the cache."""
    found: dict[str, list[str]] = page.evaluate(
        """async () => {
          const kept = {};
          for (const name of await caches.keys()) {
            const keys = await (await caches.open(name)).keys();
            kept[name] = keys.map((one) => new URL(one.url).pathname);
          }
          return kept;
        }"""
    )
    return found


@pytest.mark.chromium
@pytest.mark.timeout(300)
def test_copies_are_there_without_a_network_and_for_nobody_else(shared_demo: Any, page: Any) -> None:
    url, context = shared_demo.url, page.context
    sign_in(page, url, "kobayashi")
    page.goto(f"{url}/articles/1")
    ready(page)
    title = page.inner_text("h1")
    page.goto(f"{url}/articles/2")
    ready(page)
    page.click(".follows button >> nth=0")
    page.wait_for_url("**done=favourite")
    page.goto(f"{url}/favourites")
    ready(page)
    copies = {name: paths for name, paths in kept(page).items() if name.startswith("copies:")}
    (mine,) = copies.values()
    assert sorted(mine) == ["/articles/1/offline", "/articles/2/offline", "/offline/favourites"]

    context.set_offline(True)
    page.goto(f"{url}/articles/1")
    assert page.inner_text("h1") == title
    assert "控えです" in page.inner_text("main")
    assert page.evaluate("getComputedStyle(document.querySelector('.paper')).borderRadius") == "10px"
    for path in ("/articles/3", "/account", "/articles?q=x"):
        page.goto(f"{url}{path}")
        page.wait_for_selector("[data-copies] li")
        assert page.inner_text("[data-copies] li:nth-child(2) a") == title
    page.click("[data-copies] li:nth-child(2) a")
    page.wait_for_selector(".prose")
    context.set_offline(False)

    page.goto(f"{url}/articles")
    ready(page)
    page.eval_on_selector("form[action='/sign-out']", "(form) => form.requestSubmit()")
    page.wait_for_url("**/sign-in**")
    wait_until(lambda: page.evaluate("caches.keys().then((names) => names.join() === 'shell')"))
    context.set_offline(True)
    page.goto(f"{url}/articles/1")
    page.wait_for_selector("[data-no-copies]:visible")
    assert page.locator(".prose").count() == 0
    context.set_offline(False)

    # Somebody whose session is gone without signing out, and the next one at the same browser.
    sign_in(page, url, "kobayashi")
    page.goto(f"{url}/articles/1")
    ready(page)
    context.clear_cookies()
    sign_in(page, url, "tanaka")
    page.goto(f"{url}/articles/3")
    ready(page)
    names = [name for name in kept(page) if name.startswith("copies:")]
    assert len(names) == 1
    assert kept(page)[names[0]] == ["/articles/3/offline"]
    context.set_offline(True)
    page.goto(f"{url}/articles/1")
    page.wait_for_selector("[data-copies] li")
    assert page.locator(".prose").count() == 0
    context.set_offline(False)


@pytest.mark.chromium
@pytest.mark.timeout(300)
def test_without_a_network_it_speaks_the_language_that_was_chosen(shared_demo: Any, page: Any) -> None:
    url, context = shared_demo.url, page.context
    sign_in(
        page, url, "kobayashi"
    )  # whose language is stored from now on; others visit in that of their browser

    def switch(name: str, code: str) -> None:
        page.click(".person summary")
        page.click(f".own button:has-text('{name}')")
        page.wait_for_selector(f"html[lang={code}]", state="attached")
        ready(page)

    switch("English", "en")
    page.goto(f"{url}/articles/3")
    page.fill("#body", "Written in the shaft.")
    context.set_offline(True)
    page.click("form[data-draft] button.primary")  # what is sent is lost, and said to be
    page.wait_for_selector("[data-unsent]:visible")
    page.goto(f"{url}/articles/4")
    assert page.inner_text("h1") == "No network connection"
    assert page.locator("[data-unsent]:visible").count() == 0
    context.set_offline(False)
    page.goto(f"{url}/articles")
    switch("日本語", "ja")
    context.set_offline(True)
    page.goto(f"{url}/articles/4")  # of which there is certainly no copy
    assert page.inner_text("h1") == "ネットワークにつながっていません"
    context.set_offline(False)
