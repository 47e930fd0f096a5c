"""Pages with policies, and what a browser blocks of each: a table for the evaluator and for a real browser."""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

__all__ = ["CASES", "FILES", "HTML", "SANDBOXED", "SITE", "Case"]

SITE: Final = "https://shop.example.jp/a/page"
_HEAD: Final = "<!doctype html><title>page</title>"


class Case(NamedTuple):
    """One page.

    Attributes:
        policies: values of the header field.
        html: the page.
        blocked: directive and source of each part that is blocked.
        url: address of the page.
    """

    policies: tuple[str, ...]
    html: str
    blocked: frozenset[tuple[str, str]]
    url: str = SITE


def _case(policies: str | tuple[str, ...], html: str, blocked: str = "", url: str = SITE) -> Case:
    """Return a page; each word of ``blocked`` is a directive with its sources, which may be relative."""
    found = set[tuple[str, str]]()
    for word in blocked.split():
        directive, _, sources = word.partition("=")
        for source in sources.split("|"):
            found.add((directive, f"https://shop.example.jp{source}" if source[:1] == "/" else source))
    given = (policies,) if isinstance(policies, str) else policies
    return Case(given, _HEAD + html, frozenset(found), url)


def _hash(text: str, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, text.encode()).digest()
    return f"'{algorithm}-{base64.b64encode(digest).decode()}'"


_ALL: Final = """<link rel=stylesheet href=/s.css><style>p { color: red }</style><script src=/a.js></script>
<script>window.a = 1</script><p style="color: blue" onclick="go()">x</p><img src=/i.png>
<iframe src=/f></iframe><form action=/send method=post><button>send</button></form>
<video src=/v.mp4 poster=/p.png></video><object data=/o.svg></object><embed src=/e.svg>"""
_STYLES: Final = "style-src-elem=/s.css|inline style-src-attr=inline"
_SCRIPTS: Final = "script-src-elem=/a.js|inline script-src-attr=inline"
_REST: Final = "img-src=/i.png|/p.png frame-src=/f media-src=/v.mp4 object-src=/o.svg|/e.svg"
_INLINE: Final = "style-src-elem=inline style-src-attr=inline script-src-elem=inline script-src-attr=inline"

_PAGES: Final = (
    _case((), _ALL),
    # What nginx once added to every page of an application without a policy.
    _case(
        "default-src 'none'; form-action 'none'",
        _ALL,
        f"{_STYLES} {_SCRIPTS} {_REST} form-action=/send",
    ),
    _case("default-src 'self'", _ALL, _INLINE),
    _case("default-src 'self' 'unsafe-inline'; img-src 'none'", _ALL, "img-src=/i.png|/p.png"),
    _case("default-src *", _ALL, _INLINE),
    _case(
        "script-src 'none'; style-src 'self'", _ALL, f"{_SCRIPTS} style-src-elem=inline style-src-attr=inline"
    ),
    _case(
        "script-src-elem 'self'; script-src-attr 'unsafe-inline'; style-src-elem 'unsafe-inline'",
        _ALL,
        "script-src-elem=inline style-src-elem=/s.css",
    ),
    # All policies apply, whether in lines or behind commas; of a directive, the first one counts.
    _case(
        ("script-src 'self'", "form-action 'none'"),
        _ALL,
        "script-src-elem=inline script-src-attr=inline form-action=/send",
    ),
    _case(
        "script-src 'self', style-src 'none'",
        _ALL,
        f"script-src-elem=inline script-src-attr=inline {_STYLES}",
    ),
    _case("IMG-SRC 'self'; img-src 'none'", "<img src=/a.png>"),
    _case(" ;; img-src   'none' ;", "<img src=/a.png>", "img-src=/a.png"),
    _case("frame-ancestors 'none'; report-uri /r", _ALL),
    # Nonces and hashes.
    _case(
        "script-src 'nonce-abc'",
        "<script nonce=abc>1</script><script nonce=abd>2</script><script src=/x.js nonce=abc></script>"
        "<script src=/y.js></script><b onclick=x()>a</b>",
        "script-src-elem=inline|/y.js script-src-attr=inline",
    ),
    _case(
        "style-src 'nonce-abc'",
        "<style nonce=abc>p {}</style><style>b {}</style><link rel=stylesheet href=/x.css nonce=abc>"
        "<link rel=stylesheet href=/y.css nonce=ab><i style='color: red'>x</i>",
        "style-src-elem=inline|/y.css style-src-attr=inline",
    ),
    _case(
        "script-src 'nonce-abc' 'unsafe-inline'",
        "<script>1</script><script nonce=abc>2</script>",
        "script-src-elem=inline",
    ),
    _case(
        "default-src 'unsafe-inline' 'nonce-q'",
        "<style>p {}</style><p style='color: red'><script>1</script>",
        "style-src-elem=inline style-src-attr=inline script-src-elem=inline",
    ),
    _case(f"script-src {_hash('window.z=1')}", "<script>window.z=1</script>"),
    _case(f"script-src {_hash('window.z=1')}", "<script>window.z=2</script>", "script-src-elem=inline"),
    _case(f"script-src {_hash('go()')}", "<b onclick='go()'>x</b>", "script-src-attr=inline"),
    _case(f"script-src 'unsafe-hashes' {_hash('go()', 'sha384')}", "<b onclick='go()'>x</b>"),
    _case(f"script-src 'unsafe-hashes' {_hash('go()')}", "<b onclick='no()'>x</b>", "script-src-attr=inline"),
    _case(
        f"style-src {_hash('p {}', 'sha512')}",
        "<style>p {}</style><p style='color: red'>x</p>",
        "style-src-attr=inline",
    ),
    _case(f"style-src 'unsafe-hashes' {_hash('color: red')}", "<p style='color: red'>x</p>"),
    _case(f"script-src {_hash('1' + chr(10) + '2')}", "<script>1\r\n2</script>"),
    _case(f"script-src {_hash('é < あ')}", "<script>é < あ</script>"),
    _case(
        "script-src 'strict-dynamic' 'nonce-a' https: 'unsafe-inline'",
        "<script nonce=a src=/a.js></script><script src=/b.js></script><script>1</script><b onclick=x()>a</b>",
        "script-src-elem=/b.js|inline script-src-attr=inline",
    ),
    _case("style-src 'unsafe-inline' 'strict-dynamic'", "<style>p {}</style><p style='color: red'>"),
    # Which elements count.
    _case(
        "script-src 'none'",
        "<script type=application/json>{}</script><script type=text/template>x</script><script nomodule>1</script>",
    ),
    _case(
        "script-src 'none'",
        "<script type=module src=/m.js></script><script type='application/x-javascript' src=/q.js></script>",
        "script-src-elem=/m.js|/q.js",
    ),
    _case("script-src 'none'", "<script type=importmap>{}</script>", "script-src-elem=inline"),
    _case(
        "default-src 'none'",
        "<template><img src=/a.png><template><script>1</script></template><img src=/b.png></template>"
        "<noscript><img src=/c.png></noscript><textarea><img src=/d.png></textarea><!-- <img src=/e.png> -->",
    ),
    _case(
        "style-src 'none'",
        "<link rel=icon href=/i.ico><link rel='preload stylesheet' href=/k.css as=style>",
        "style-src-elem=/k.css",
    ),
    _case("img-src 'none'", "<input type=image src=/in.png>", "img-src=/in.png"),
    _case("img-src 'none'", "<img srcset='/b.webp 1x'>", "img-src=/b.webp"),
    _case(
        "media-src 'none'",
        "<audio src=/a.mp3></audio><video><source src=/v.mp4></video>",
        "media-src=/a.mp3|/v.mp4",
    ),
    _case(
        "frame-src 'none'",
        "<iframe src=/x></iframe><iframe srcdoc='<p>x'></iframe><iframe src=about:blank></iframe>",
        "frame-src=/x",
    ),
    _case("child-src 'none'", "<iframe src=/x></iframe>", "frame-src=/x"),
    _case("child-src 'none'; frame-src 'self'", "<iframe src=/x></iframe>"),
    _case("default-src 'none'", "<link rel=preload href=/f.woff2 as=font crossorigin>", "font-src=/f.woff2"),
    _case(
        "media-src 'none'",
        "<video><track default kind=captions src=/t.vtt></video>",
        "media-src=/t.vtt",
    ),
    _case(
        "style-src 'none'",
        "<link rel=stylesheet type=text/less href=/a.less><link rel=stylesheet disabled href=/d.css>",
    ),
    _case(
        "img-src 'none'",
        "<svg><image href=/v.png /><use href=/s.svg#a /><use href=#here /></svg><link rel=icon href=/i.ico>",
        "img-src=/v.png|/s.svg|/i.ico",
    ),
    # Names that begin like those of event handlers are none.
    _case("script-src 'none'", "<p once=x one=1 only=y ongoing=z onion=o>x</p>"),
    _case(
        "script-src 'none'",
        "<p onpointerdown=x() onbeforeinput=x() ontouchstart=x() onanimationend=x()>x</p>",
        "script-src-attr=inline",
    ),
    # Links that run a script need what script elements need; those that do nothing are not worth a word.
    _case("script-src 'self'", "<a href='javascript:go()'>x</a>", "script-src-elem=inline"),
    _case("script-src 'unsafe-inline'", "<a href='JavaScript:go()'>x</a>"),
    _case(
        "script-src 'nonce-a' 'unsafe-inline'", "<a href='javascript:go()'>x</a>", "script-src-elem=inline"
    ),
    _case(
        f"script-src {_hash('javascript:go()')}", "<a href='javascript:go()'>x</a>", "script-src-elem=inline"
    ),
    _case(f"script-src 'unsafe-hashes' {_hash('javascript:go()')}", "<a href='javascript:go()'>x</a>"),
    # A script of an address is allowed by the hash that its element promises.
    _case(
        f"script-src {_hash('1')} {_hash('2', 'sha384')}",
        f"<script src=/a.js integrity={_hash('1')[1:-1]} crossorigin></script>"
        f"<script src=/b.js integrity='{_hash('1')[1:-1]} {_hash('2', 'sha384')[1:-1]}' crossorigin></script>"
        f"<script src=/c.js integrity='{_hash('3')[1:-1]}' crossorigin></script><script src=/d.js></script>",
        "script-src-elem=/c.js|/d.js",
    ),
    # What a style in the page loads.
    _case(
        "default-src 'none'; style-src 'unsafe-inline'",
        "<style>@import '/i.css'; @import url(/j.css) screen; /* url(/no.png) */ p { background: url(\"/b.png\") }"
        "@font-face { font-family: f; src: url(/f.woff2) } p { font-family: f; filter: url(#x) }</style><p>x</p>",
        "style-src-elem=/i.css|/j.css img-src=/b.png font-src=/f.woff2",
    ),
    _case(
        "font-src 'self'; img-src 'self' data:",
        "<style>@font-face { font-family: f; src: url('data:font/woff2;base64,AA==') } p { font-family: f;"
        "background: url(\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' fill='rgb(0,0,0)'/>\") }"
        "</style><p>x</p>",
        "font-src=data:font/woff2;base64,AA==",
    ),
    # Forms: no fallback to default-src; without an action, the page itself.
    _case("default-src 'none'", "<form action=/y></form>"),
    _case("form-action 'none'", "<form><input name=x></form>", "form-action=/a/page"),
    _case("form-action 'none'", "<form method=dialog></form>"),
    _case("form-action https://other.example", "<form action=https://other.example/x></form>"),
    _case("form-action /y", "<form action=/y></form>", "form-action=/y"),
    # The base of the addresses, and policies in the page.
    _case(
        "base-uri 'none'; img-src 'self'",
        "<base href=https://other.example/><img src=/a.png>",
        "base-uri=https://other.example/",
    ),
    _case(
        "img-src 'self'",
        "<base href=https://other.example/><img src=a.png>",
        "img-src=https://other.example/a.png",
    ),
    _case(
        (),
        "<meta http-equiv=Content-Security-Policy content=\"img-src 'none'\"><img src=/a.png>",
        "img-src=/a.png",
    ),
    # Outside the head, browsers ignore such a policy.
    _case((), "<p><meta http-equiv=Content-Security-Policy content=\"img-src 'none'\"><img src=/a.png>"),
    _case((), "text <meta http-equiv=Content-Security-Policy content=\"img-src 'none'\"><img src=/a.png>"),
    _case(
        (),
        "<script>1</script></head><meta http-equiv=content-security-policy content=\"img-src 'none'\"><img src=/a>",
        "img-src=/a",
    ),
    _case(
        "img-src 'self'",
        "<meta http-equiv=content-security-policy content=\"sandbox; style-src 'none'\"><img src=/a.png>"
        "<style>p {}</style><script>1</script>",
        "style-src-elem=inline",
    ),
    _case("img-src 'self'; upgrade-insecure-requests", "<img src=http://shop.example.jp/a.png>"),
)

_HTTP: Final = "http://shop.example.jp/a"
_SOURCES: Final = (
    # source, address of a picture, whether it is shown, address of the page
    ("https://cdn.example", "https://cdn.example/a.png", True, SITE),
    ("cdn.example", "https://cdn.example/a.png", True, SITE),
    ("CDN.example", "https://cdn.EXAMPLE/a.png", True, SITE),
    ("cdn.example", "http://cdn.example/a.png", True, _HTTP),
    ("http://cdn.example", "https://cdn.example/a.png", True, _HTTP),
    ("http://cdn.example:80", "https://cdn.example/a.png", True, SITE),
    ("https://cdn.example", "http://cdn.example/a.png", False, _HTTP),
    ("https://cdn.example", "http://cdn.example/a.png", True, SITE),
    ("'self'", "http://shop.example.jp/a.png", True, SITE),
    ("cdn.example:443", "https://cdn.example/a.png", True, SITE),
    ("cdn.example:*", "https://cdn.example:8443/a.png", True, SITE),
    ("cdn.example", "https://cdn.example:8443/a.png", False, SITE),
    ("*.example", "https://cdn.example/a.png", True, SITE),
    ("*.cdn.example", "https://cdn.example/a.png", False, SITE),
    ("*.cdn.example", "https://a.b.cdn.example/a.png", True, SITE),
    ("cdn.example", "https://cdn.example.evil.example/a.png", False, SITE),
    ("cdn.example/a/", "https://cdn.example/a/b.png", True, SITE),
    ("cdn.example/a", "https://cdn.example/a/b.png", False, SITE),
    ("cdn.example/a.png", "https://cdn.example/a.png?x=y", True, SITE),
    ("cdn.example/A.png", "https://cdn.example/a.png", False, SITE),
    ("cdn.example/", "https://cdn.example/a.png", True, SITE),
    ("cdn.example/%61.png", "https://cdn.example/a.png", True, SITE),
    ("https:", "https://cdn.example/a.png", True, SITE),
    ("http:", "https://cdn.example/a.png", True, _HTTP),
    ("https:", "http://cdn.example/a.png", False, _HTTP),
    ("'self'", "/a.png", True, SITE),
    ("'SELF'", "/a.png", True, SITE),
    ("self", "/a.png", False, SITE),
    ("'self'", "https://shop.example.jp/a.png", True, _HTTP),
    ("'self'", "https://shop.example.jp:444/a.png", False, SITE),
    ("'self'", "/a.png", True, "https://shop.example.jp:444/a"),
    ("'self'", "https://shop.example.jp/a.png", False, "https://shop.example.jp:444/a"),
    ("'self'", "//cdn.example/a.png", False, SITE),
    ("*", "https://cdn.example:99/a.png", True, SITE),
    ("*", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", False, SITE),
    ("data:", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", True, SITE),
    ("https://*", "https://cdn.example/a.png", True, SITE),
    ("https://*:*", "https://cdn.example:81/a.png", True, SITE),
    ("", "https://cdn.example/a.png", False, SITE),
    ("'none'", "/a.png", False, SITE),
    ("'none' 'self'", "/a.png", True, SITE),
    ("localhost:8000", "http://localhost:8000/a.png", True, "http://localhost:8000/x"),
    ("127.0.0.1:8000", "http://127.0.0.1:8000/a.png", True, "http://127.0.0.1:8000/x"),
    ("'self'", "https://[::bad/a.png", True, SITE),
)

CASES: Final = (
    *_PAGES,
    *(
        _case(
            f"img-src {source}",
            f"<img src={address}>",
            ""
            if shown
            else f"img-src={address.replace('//cdn', 'https://cdn') if address[:2] == '//' else address}",
            url,
        )
        for source, address, shown, url in _SOURCES
    ),
)

SANDBOXED: Final = """<!doctype html><title>page</title><script>document.title = "ran"</script>
<form action="/send" method="post"><button>send</button></form>"""
"""A page whose script and form need ``allow-scripts`` and ``allow-forms``."""

HTML: Final = "text/html; charset=utf-8"
_NOSNIFF: Final = {"x-content-type-options": "nosniff"}
FILES: Final = (
    ("<link rel=stylesheet href=/x>", 404, "text/css", {}, "/x of <link> is answered with 404"),
    ("<link rel=stylesheet href=/x>", 200, HTML, {}, "/x of <link> is served as text/html, not as text/css"),
    ("<link rel=stylesheet href=/x>", 200, "", {}, ""),
    (
        "<link rel=stylesheet href=/x>",
        200,
        "",
        _NOSNIFF,
        "/x of <link> is served as no type, not as text/css",
    ),
    ("<script src=/x></script>", 503, "", {}, "/x of <script> is answered with 503"),
    ("<script src=/x></script>", 200, "text/plain", {}, ""),
    ("<script src=/x></script>", 200, "", {}, ""),
    (
        "<script src=/x></script>",
        200,
        "",
        _NOSNIFF,
        "/x of <script> is served as no type, not as text/javascript",
    ),
    (
        "<script src=/x></script>",
        200,
        "text/csv",
        {},
        "/x of <script> is served as text/csv, not as text/javascript",
    ),
    (
        "<script src=/x></script>",
        200,
        "text/plain",
        _NOSNIFF,
        "/x of <script> is served as text/plain, not as text/javascript",
    ),
    (
        "<script type=module src=/x></script>",
        200,
        "text/plain",
        {},
        "/x of <script> is served as text/plain, not as text/javascript",
    ),
    (
        "<script type=module src=/x></script>",
        200,
        "",
        {},
        "/x of <script> is served as no type, not as text/javascript",
    ),
    ("<iframe src=/x></iframe>", 404, HTML, {}, "/x of <iframe> is answered with 404"),
    ("<iframe src=/x></iframe>", 200, HTML, {"x-frame-options": "SAMEORIGIN"}, ""),
    (
        "<iframe src=/x></iframe>",
        200,
        HTML,
        {"x-frame-options": "DENY"},
        '/x of <iframe> may not be shown in a frame (X-Frame-Options) -> ["/x"] frame = "same-origin"',
    ),
    (
        "<iframe src=/x></iframe>",
        200,
        HTML,
        {"content-security-policy": "default-src *; frame-ancestors 'none'"},
        '/x of <iframe> may not be shown in a frame (frame-ancestors) -> ["/x"] frame = "same-origin"',
    ),
    ("<iframe src=/x></iframe>", 200, HTML, {"content-security-policy": "frame-ancestors https:"}, ""),
    ("<iframe src=//other.example/x></iframe>", 404, HTML, {}, ""),
)
"""Elements that load ``/x``, its status, type and further fields, and what is wrong with it."""
