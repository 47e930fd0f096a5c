"""CORS and one session in two tabs, as a real browser sees them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from composed_server import ComposedServer
from testbed.polling import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.chromium]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
]  # fmt: skip
FETCH = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        return {status: response.status, body: await response.text(), retry: response.headers.get("retry-after")};
    } catch (error) { return {error: error.name}; }
}"""


class Page(BaseHTTPRequestHandler):
    """The page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>shop</title>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[int]:
    """The port of a site whose pages use the API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def browser(chromium_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
    ):
        yield browser


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "clients"
    file.write_text("# nobody\n")
    return file


@pytest.fixture
def api(tmp_path: Path, shop: int, rules: Path) -> Iterator[ComposedServer]:
    environ = {"COMPOSED_ORIGIN": f"http://localhost:{shop}", "COMPOSED_CLIENTS": str(rules)}
    server = ComposedServer(tmp_path, environ)
    yield server
    server.process.stop()


def test_a_page_of_an_allowed_origin(browser: Any, api: ComposedServer, shop: int, rules: Path) -> None:
    base = f"http://localhost:{api.port}"
    tab = browser.new_page()
    tab.goto(f"http://localhost:{shop}/")

    def fetch(path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = tab.evaluate(FETCH, [base + path, options])
        return found

    assert fetch("/who")["status"] == 200
    preflighted = fetch("/who", method="PUT", headers={"X-Shop": "1"}, credentials="include")
    assert '"method": "PUT"' in preflighted["body"]
    assert fetch("/who", method="PATCH") == {"error": "TypeError"}
    assert fetch("/who", headers={"X-Other": "1"}) == {"error": "TypeError"}

    assert fetch("/sign-in/tanaka", credentials="include")["status"] == 200
    assert '"user": "tanaka"' in fetch("/who", credentials="include")["body"]
    assert '"user": null' in fetch("/who", credentials="omit")["body"]

    limited = [fetch("/limited") for _ in range(6)][-1]
    assert (limited["status"], int(limited["retry"]) > 0) == (429, True)
    assert "detail" in limited["body"]

    rules.write_text("deny 127.0.0.1\ndeny ::1\n")
    wait_until(lambda: fetch("/who")["status"] == 403, timeout=10, what="the new rules")
    denied = fetch("/who", method="PUT", headers={"X-Shop": "1"}, credentials="include")
    assert "Requests from this network are not accepted." in denied["body"]


def test_a_page_of_another_origin_reads_nothing(browser: Any, api: ComposedServer, shop: int) -> None:
    base = f"http://localhost:{api.port}"
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{shop}/")  # another origin than localhost
    for options in ({}, {"credentials": "include"}, {"method": "PUT", "headers": {"X-Shop": "1"}}):
        assert tab.evaluate(FETCH, [f"{base}/who", options]) == {"error": "TypeError"}
        assert tab.evaluate(FETCH, [f"{base}/nothing-is-here", options]) == {"error": "TypeError"}


def test_one_session_in_two_tabs(browser: Any, api: ComposedServer) -> None:
    base = f"http://localhost:{api.port}"
    context = browser.new_context()
    tabs = [context.new_page() for _ in range(2)]
    for tab in tabs:
        tab.goto(f"{base}/page")

    def fetch(number: int, path: str) -> dict[str, Any]:
        found: dict[str, Any] = tabs[number].evaluate(FETCH, [base + path, {}])
        return found

    fetch(0, "/sign-in/tanaka")
    assert '"user": "tanaka"' in fetch(1, "/who")["body"]
    # Requests of one tab are under way while the other changes the id of the session.
    busy = "Promise.all(Array.from({length: 12}, () => fetch('/who').then(response => response.status)))"
    for _ in range(3):
        tabs[0].evaluate(f"() => {{ window.busy = {busy} }}")
        assert fetch(1, "/rotate")["status"] == 200
        assert set(tabs[0].evaluate("() => window.busy")) == {200}
        assert '"user": "tanaka"' in fetch(0, "/who")["body"]
    assert fetch(1, "/sign-out")["status"] == 200
    assert '"user": null' in fetch(0, "/who")["body"]
