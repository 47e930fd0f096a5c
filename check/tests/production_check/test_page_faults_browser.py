"""``check --url`` against a hardened application, and a real browser: both see the same, and the advice helps."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from mks_check import check
from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

pytestmark = [pytest.mark.slow, pytest.mark.chromium]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

HTML = "text/html; charset=utf-8"
PAGES = {
    "/": (
        HTML,
        """<!doctype html><title>front</title><link rel=stylesheet href=/s.css>
        <p class=a style="color: red">é</p>
        <script>window.ran = "あ"</script><style>b { color: red }</style><iframe src=/frame></iframe>
        <img src=data:image/gif;base64,R0lGODlhAQABAAAAACw= onload="window.loaded = 1">
        <script type=module src=/module.js></script><a href=/login>Sign in</a>""",
    ),
    "/login": (
        HTML,
        "<!doctype html><form method=post><input type=password><button onclick='go()'>x</button></form>",
    ),
    "/frame": (HTML, "<!doctype html><p>framed"),
    "/s.css": (
        "text/css",
        "@font-face{font-family:f;src:url(data:font/woff2;base64,AA==)} .a{font-family:f}",
    ),
    "/module.js": ("text/javascript", 'import "./part.js"'),
    "/part.js": (
        "text/javascript",
        """const s = document.createElement("style"); s.textContent = "u {}"; document.head.append(s);
        WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])).catch(error => 0)""",
    ),
}


def _application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    kind, body = PAGES.get(environ["PATH_INFO"], ("", ""))
    start_response("200 OK" if kind else "404 Not Found", [("Content-Type", kind or "text/plain")])
    return [body.encode()]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None: ...


@contextmanager
def _served(**variables: str) -> Iterator[str]:
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development", **variables})
    server = make_server("127.0.0.1", 0, harden_wsgi(_application, settings), handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def reports(chromium_path: str) -> Iterator[Callable[[str], set[str]]]:
    """Return a function that opens a page and returns the directives that a browser says to have enforced."""
    from playwright.sync_api import sync_playwright

    def opened(url: str) -> set[str]:
        page, said = browser.new_page(), list[str]()
        page.on("console", lambda message: said.append(message.text))
        page.add_init_script(
            """window.seen = []; document.addEventListener("securitypolicyviolation",
                event => window.seen.push(event.effectiveDirective))"""
        )
        page.goto(url, wait_until="networkidle")
        frames = {"frame" for text in said if "frame" in text.lower() and "refused" in text.lower()}
        refused = {"frame" for frame in page.frames[1:] if frame.url.startswith("chrome-error:")}
        directives = set(page.evaluate("window.seen"))
        page.close()
        return directives | frames | refused

    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
    ):
        yield opened


def _advice(evidence: Iterable[str]) -> str:
    """Return the settings of findings as a file for MKS_HEADERS_FILE."""
    values: dict[tuple[str, str], dict[str, None]] = {}
    for each in evidence:
        found = re.fullmatch(r"""(?:(\["[^"]+"\]) )?([\w.-]+) = (.+)""", each.partition("; ")[2])
        assert found, each
        values.setdefault((found[1] or "", found[2]), {}).update(
            dict.fromkeys(re.findall('"[^"]+"', found[3]))
        )
    return "".join(
        f"{table}\n{name} = "
        + (f"[{', '.join(given)}]\n" if name.startswith("csp.") else f"{next(iter(given))}\n")
        for (table, name), given in sorted(values.items())
    )


def test_a_browser_sees_what_the_check_reports_and_its_advice_helps(
    reports: Callable[[str], set[str]], tmp_path: Path
) -> None:
    with _served() as url:
        findings = [each for each in check(url=url).findings if each.id == "MKS-WEB-028"]
        front = {
            match[1] if (match := re.match("/: ([a-z-]+) blocks", each.evidence)) else "frame"
            for each in findings
            if each.evidence.startswith("/: ")
        }
        assert (
            front
            == reports(url)
            == {
                *("style-src-attr", "style-src-elem", "script-src-elem", "script-src-attr", "script-src"),
                *("font-src", "frame"),
            }
        )
        assert {
            each.evidence.partition(" blocks")[0] for each in findings if each.evidence.startswith("/login")
        } == {"/login: script-src-attr"}
    (tmp_path / "headers.toml").write_text(_advice(each.evidence for each in findings), encoding="utf-8")
    with _served(MKS_HEADERS_FILE=str(tmp_path / "headers.toml")) as url:
        left = [each.evidence for each in check(url=url).findings if each.id == "MKS-WEB-028"]
        assert (left, reports(url)) == ([], set())
