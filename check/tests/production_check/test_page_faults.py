"""What a browser would not show of the pages of a site, given its responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from csp_pages import FILES, HTML
from mks_check.production_check.http_response import HttpResponse
from mks_check.production_check.page_faults import own_path, page_faults
from mks_hardening.exceptions import ConfigurationError
from tables import faulty_rows

SITE: Final = "https://shop.example.jp"
DOCTYPE: Final = "<!doctype html><title>page</title>"
SELF: Final = {"content-security-policy": "default-src 'self'"}
NOSNIFF: Final = {"x-content-type-options": "nosniff"}


def _response(
    path: str, body: str = "", kind: str = HTML, status: int = 200, **fields: str
) -> tuple[str, HttpResponse]:
    given = {"content-type": kind, **fields}
    return path, HttpResponse(url=SITE + path, status=status, fields=tuple(given.items()), body=body)


def _page(path: str, body: str, **fields: str) -> tuple[str, HttpResponse]:
    return _response(path, DOCTYPE + body, **fields)


class _Site:
    """Answers with given responses, 404 for all others, and notes the requests."""

    def __init__(self, *responses: tuple[str, HttpResponse]) -> None:
        self.responses = dict(responses)
        self.requests: list[tuple[str, Mapping[str, str]]] = []

    def get(self, path: str, fields: Mapping[str, str]) -> HttpResponse:
        self.requests.append((path, fields))
        return self.responses.get(path) or HttpResponse(url=SITE + path, status=404)

    def faults(self, *pages: str, websocket: str = "") -> list[str]:
        found = page_faults(self.get, SITE + "/", pages=pages, websocket=websocket)
        return [
            f"{'' if certain else '? '}{page}: {text}" + (f" -> {setting}" if setting else "")
            for page, text, setting, certain in found
        ]


def test_an_ordinary_page_with_a_matching_policy_has_no_faults() -> None:
    body = """<link rel=stylesheet href=s.css><script src=/a.js></script><script type=module src=/m.js></script>
        <script type=application/json>{}</script><img src=/i.png srcset='/i2.png 2x'><iframe src=/f></iframe>
        <form action=/search><input name=q onfocusable=x></form><a href='javascript:void(0)'>x</a>
        <svg><use href=#i /></svg><form method=post action=/sign-in><input type=password name=p></form>"""
    site = _Site(
        _page("/", body, **SELF, **NOSNIFF),
        _response(
            "/s.css", "p { background: url(/b.png) } @font-face { src: url(f.woff2) }", "text/css", **NOSNIFF
        ),
        _response("/a.js", "import('./c.js')", "text/javascript; charset=utf-8", **NOSNIFF),
        _response("/m.js", 'import x from "./c.js"', "application/javascript", **NOSNIFF),
        _response("/c.js", "export default 1", "text/javascript"),
        _page("/f", "", **{"content-security-policy": "frame-ancestors 'self'", "x-frame-options": "DENY"}),
    )
    assert site.faults() == []
    assert [path for path, _ in site.requests] == ["/", "/s.css", "/a.js", "/c.js", "/m.js", "/f"]


def test_files_are_judged_as_browsers_judge_them() -> None:
    def wrong(row: tuple[str, int, str, dict[str, str], str]) -> object:
        element, status, kind, fields, expected = row
        site = _Site(_page("/", element), _response("/x", "", kind, status, **fields))
        return site.faults() != [f"/: {SITE}{expected}"] * bool(expected) and site.faults()

    assert faulty_rows(FILES, wrong) == {}


def test_a_page_without_a_document_type_takes_styles_of_any_type() -> None:
    link, css = "<link rel=stylesheet href=/x>", _response("/x", "", "text/plain")
    assert _Site(_response("/", link), css).faults() == []
    strict = _response("/x", "", "text/plain", **NOSNIFF)
    assert _Site(_response("/", link), strict).faults() != []


def test_a_frame_needs_the_embedder_policy_of_its_page() -> None:
    isolated = {"cross-origin-embedder-policy": "credentialless"}
    name, frame = "Cross-Origin-Embedder-Policy", "<iframe src=/f></iframe>"
    assert _Site(_page("/", frame, **isolated), _page("/f", "", **isolated)).faults() == []
    assert _Site(_page("/", frame, **isolated), _page("/f", "")).faults() == [
        f'/: {SITE}/f of <iframe> needs {name}: credentialless -> ["/f"] coep = "credentialless"'
    ]


def test_a_frame_of_another_site_may_need_the_embedder_policy() -> None:
    name = "Cross-Origin-Embedder-Policy"
    frame = "<iframe src=https://m.example/></iframe>"
    assert _Site(_page("/", frame, **{"cross-origin-embedder-policy": "unsafe-none"})).faults() == []
    assert _Site(_page("/", frame, **{"cross-origin-embedder-policy": "require-corp"})).faults() == [
        f'? /: https://m.example/ of <iframe> needs {name}: require-corp -> ["/"] coep = "unsafe-none"'
    ]


@pytest.mark.parametrize(
    ("front", "opened"),
    [
        ("<a href=/blog>x</a><a href='/accounts/login/?next=/a#b'>Sign in</a>", "/accounts/login/?next=/a"),
        ("<a href=users/sign_in>x</a>", "/users/sign_in"),
        ("<a href=https://other.example/login>x</a>", ""),
        ("<a href=/blogs/logins>x</a>", ""),
        ("<a href=/login>x</a><input type=password>", ""),
    ],
)
def test_the_sign_in_page_is_the_one_that_the_front_page_names(front: str, opened: str) -> None:
    site = _Site(_page("/", front), _page(opened or "/x", "<script>1</script>", **SELF))
    assert len(site.faults()) == bool(opened)
    assert [path for path, _ in site.requests] == ["/", *[opened] * bool(opened)]


def test_redirects_of_the_site_are_followed_and_no_others() -> None:
    site = _Site(
        _response("/", status=302, location="/sign-in?next=/"),
        _page("/sign-in?next=/", "<script>1</script>", **SELF),
        _response("/a", status=302, location="https://other.example/"),
        _response("/b", status=302, location="/b"),
        _response("/c", status=302, location="//["),
    )
    remedy = "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"
    assert site.faults("/a", "/b", "/c") == [
        f'/sign-in: script-src-elem blocks inline of <script> -> csp.script-src-elem = ["{remedy}"]'
    ]


def test_scripts_and_what_they_import_are_read() -> None:
    site = _Site(
        _page(
            "/", "<script src=/a.js></script><link rel=stylesheet href=/css/s.css><style>p {}</style>", **SELF
        ),
        _response("/a.js", 'import("./b.js"); import "https://other.example/c.js"', "text/javascript"),
        _response(
            "/b.js",
            'WebAssembly.instantiate(x); d.createElement("style"); import("./a.js")',
            "text/javascript",
        ),
        _response(
            "/css/s.css", "@import url(//cdn.example/i.css); p { background: url(data:,) }", "text/css"
        ),
    )
    assert sorted(site.faults()) == [
        "/: script-src blocks wasm-eval of <script> -> csp.script-src = [\"'wasm-unsafe-eval'\"]",
        "/: style-src-elem blocks inline of <style> -> csp.style-src-elem = [\"'unsafe-inline'\"]",
        '? /: img-src blocks data:, of <style> -> csp.img-src = ["data:"]',
        '? /: style-src-elem blocks https://cdn.example/i.css of <style> -> csp.style-src-elem = ["https://cdn.example"]',
        "? /: style-src-elem blocks inline of <script> -> csp.style-src-elem = [\"'unsafe-inline'\"]",
    ]


def test_scripts_in_the_page_are_read_as_well() -> None:
    policy = {"content-security-policy": "default-src 'self'; script-src 'unsafe-inline'"}
    assert _Site(_page("/", "<script>WebAssembly.compile(x)</script>", **policy)).faults() == [
        "/: script-src blocks wasm-eval of <script> -> csp.script-src = [\"'wasm-unsafe-eval'\"]"
    ]


def test_what_a_policy_allows_of_scripts_is_no_fault() -> None:
    policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'unsafe-inline'"
    site = _Site(
        _page("/", "<script src=/a.js></script>", **{"content-security-policy": policy}),
        _response("/a.js", "WebAssembly.compile(x); d.createElement('style')", "text/javascript"),
    )
    assert site.faults() == []


@pytest.mark.parametrize(
    ("element", "faults"),
    [
        (
            "<script src=http://cdn.example/a></script>",
            ["/: mixed content blocks http://cdn.example/a of <script>"],
        ),
        (
            "<link rel=stylesheet href=http://cdn.example/a>",
            ["/: mixed content blocks http://cdn.example/a of <link>"],
        ),
        (
            "<iframe src=http://cdn.example/a></iframe>",
            ["/: mixed content blocks http://cdn.example/a of <iframe>"],
        ),
        ("<img src=http://cdn.example/i.png>", []),
        ("<script src=http://127.0.0.1/a.js></script>", []),
    ],
)
def test_plain_http_is_mixed_content(element: str, faults: list[str]) -> None:
    assert _Site(_page("/", element)).faults() == faults
    upgraded = {"content-security-policy": "upgrade-insecure-requests"}
    assert _Site(_page("/", element, **upgraded)).faults() == []


@pytest.mark.parametrize("status", [101, 302, 401, 403])
def test_a_websocket_that_is_reached_is_no_fault(status: int) -> None:
    site = _Site(_page("/", ""), _response("/ws", status=status))
    assert site.faults(websocket="/ws") == []
    path, fields = site.requests[-1]
    assert (path, fields["Upgrade"], fields["Origin"]) == ("/ws", "websocket", SITE)


@pytest.mark.parametrize("status", [200, 400, 404, 426, 502])
def test_a_websocket_that_is_not_reached_is_a_fault(status: int) -> None:
    site = _Site(_page("/", ""), _response("/ws", status=status))
    assert site.faults(websocket="/ws") == [f"/ws: the WebSocket is not opened: {status}"]


def test_an_error_of_the_server_is_a_fault_and_other_answers_are_not() -> None:
    assert _Site(_response("/", "", status=502)).faults() == ["/: the page is answered with 502"]
    assert _Site(_response("/", "{}", "application/json", 404)).faults() == []


def test_requests_are_bounded() -> None:
    site = _Site(_page("/", "".join(f"<script src=/{number}.js></script>" for number in range(500))))
    site.faults()
    assert len(site.requests) <= 50


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("/a?b=c#d", "/a?b=c"),
        ("b", "/x/b"),
        ("", "/x/y"),
        ("https://SHOP.example.jp:443/", "/"),
        ("http://shop.example.jp/", ""),
        ("https://shop.example.jp:8443/", ""),
        ("//other.example/", ""),
        ("//[", ""),
        ("/a b", ""),
        ("/é", ""),
    ],
)
def test_only_paths_of_the_site_are_requested(reference: str, path: str) -> None:
    assert own_path(SITE + "/x/y", reference, SITE + "/") == path


@pytest.mark.parametrize("path", ["https://other.example/", "//[", "/a b", "/a\r\nX: y"])
def test_a_path_that_is_none_of_the_site_is_refused(path: str) -> None:
    site = _Site(_page("/", ""))
    with pytest.raises(ConfigurationError, match="pages must be a path of the site"):
        site.faults(path)
    with pytest.raises(ConfigurationError, match="websocket must be a path of the site"):
        site.faults(websocket=path)
    assert {requested for requested, _ in site.requests} == {"/"}


@pytest.mark.parametrize(
    "body",
    [
        f"<style>{'@font-face{' * 50_000}</style>",
        f"<style>{'@namespace ' * 50_000}</style>",
        f"<style>{'/* ' * 100_000}</style>",
        f"<script>import{' ' * 100_000}x</script>",
        f"<a href='javascript:{' ' * 100_000}x'>",
    ],
)
@pytest.mark.timeout(20)
def test_hostile_pages_take_no_more_time_than_others(body: str) -> None:
    assert len(_Site(_page("/", body)).faults()) == 0
