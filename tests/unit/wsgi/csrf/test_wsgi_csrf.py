"""Requests that another site makes a browser send."""

from __future__ import annotations

import hmac
import io
import re
from operator import itemgetter
from typing import Any

import pytest

from mks_hardening._edge.csrf.form_token import CSRFToken
from mks_hardening._edge.csrf.same_origin import RequestSender, SameOrigin
from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import CSRFMiddleware, ProxyTrust, TrustedProxyMiddleware
from mks_hardening.wsgi.csrf._form_body import read_form_field
from tables import faulty_rows
from wsgi_stacks import CORPUS, corpus_runner, make_csrf_stack

WSGI_ONLY: set[str] = set()

CASES = corpus_runner().read(CORPUS / "wsgi/csrf.jsonl")
OWN = "https://www.example.com"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Session:
    """What the middleware needs of a session handle."""

    def __init__(self, csrf_token: str | None) -> None:
        self.csrf_token = csrf_token


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Shows a token, or the body it was sent."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    shown = body or str(environ["mks_hardening.csrf_token"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [shown]


def protect(app: Any, **options: Any) -> CSRFMiddleware:
    return CSRFMiddleware(app, **{"allowed_origins": [OWN, "http://partner.test:8080"], **options})


def send(headers: dict[str, str], *, path: str = "/", method: str = "POST", **options: Any) -> Any:
    known = {key: options.pop(key) for key in ("body", "environ") if key in options}
    return call_wsgi(
        application, path, wrap=lambda app: protect(app, **options), method=method, headers=headers, **known
    )


COOKIE = {"Cookie": "session=1"}


def test_the_table_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 90
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
def test_table() -> None:
    runner = corpus_runner()
    assert faulty_rows(CASES, lambda case: runner.faults(case, make_csrf_stack), name=itemgetter("id")) == {}


def test_a_refusal_is_short_counted_and_not_stored() -> None:
    seen: list[Any] = []
    add_observer(seen.append)
    try:
        answer = send({**COOKIE, "Origin": "https://evil.test", "Accept": "text/html"})
        send(COOKIE)
    finally:
        remove_observer(seen.append)
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert b"evil" not in answer.body
    assert seen == [
        RequestRefused("csrf", "origin", "127.0.0.1"),
        RequestRefused("csrf", "token", "127.0.0.1"),
    ]


# --- the request's own origin -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "host", "headers", "status"),
    [
        ("http", "127.0.0.1:8000", {"Origin": "http://127.0.0.1:8000"}, 200),
        ("http", "[::1]:8000", {"Origin": "http://[::1]:8000"}, 200),
        ("https", "a.wild.example", {"Origin": "https://a.wild.example"}, 200),
        ("https", "xn--r8jz45g.jp", {"Origin": "https://xn--r8jz45g.jp"}, 200),
        ("https", "WWW.Example.org.", {"Origin": "https://www.example.org"}, 200),
        ("https", "a.example:443", {"Origin": "https://a.example"}, 200),
        ("https", "a.example", {"Referer": "https://a.example/page?token=secret"}, 200),
        ("https", "a.wild.example", {"Origin": "https://b.wild.example"}, 403),
        ("https", "a.example", {"Origin": "http://a.example"}, 403),
        ("https", "a.example", {"Origin": "https://a.example:8443"}, 403),
        ("https", "a.example", {"Origin": "https://a.example.evil.test"}, 403),
        ("https", "a.example", {"Referer": "https://evil.test/https://a.example/"}, 403),
        ("https", "a b", {"Origin": "https://a b"}, 403),
        ("https", "", {"Origin": "https://"}, 403),
        ("https", "", {"Origin": "null"}, 403),
        # A proxy that hides scheme and port, and a browser that knows them.
        ("http", "a.example", {"Origin": "https://a.example:8443", "Sec-Fetch-Site": "same-origin"}, 200),
        ("http", "a.example", {"Origin": "https://a.example:8443", "Sec-Fetch-Site": "same-site"}, 403),
        ("http", "a.example", {"Origin": "https://evil.test", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
def test_pages_of_the_host_that_is_asked_may_send(
    scheme: str, host: str, headers: dict[str, str], status: int
) -> None:
    app = CSRFMiddleware(application)
    answer = call_wsgi(
        app, method="POST", scheme=scheme, body=b"x", headers={"Host": host, **COOKIE, **headers}
    )
    assert answer.status == status


def test_the_origin_is_what_trusted_proxies_say() -> None:
    app = TrustedProxyMiddleware(CSRFMiddleware(application), trust=ProxyTrust(["127.0.0.1"]))
    headers = {"Host": "10.0.0.7:8000", "X-Forwarded-Host": "a.example:8443", "X-Forwarded-Proto": "https"}
    asked = {
        origin: call_wsgi(app, method="POST", body=b"x", headers={**headers, "Origin": origin}).status
        for origin in ("https://a.example:8443", "https://a.example", "http://10.0.0.7:8000")
    }
    assert list(asked.values()) == [200, 403, 403]
    untrusted = {"REMOTE_ADDR": "192.0.2.1"}
    headers["Origin"] = "https://a.example:8443"
    assert call_wsgi(app, method="POST", body=b"x", headers=headers, environ=untrusted).status == 403


# --- tokens -------------------------------------------------------------------------------------------------


def page(cookie: str | None = None, session: Session | None = None) -> tuple[str, str | None, Any]:
    """A page with a token: the token, the cookie it sets and the answer."""
    headers = {"Cookie": cookie} if cookie else {}
    environ = {"mks_hardening.session": session} if session else {}
    answer = send(headers, method="GET", environ=environ)
    cookies = [value for name, value in answer.headers if name == "Set-Cookie"]
    return answer.body.decode(), cookies[0] if cookies else None, answer


def test_without_session_the_token_belongs_to_a_host_cookie() -> None:
    token, cookie, answer = page()
    assert cookie is not None
    assert re.fullmatch(r"__Host-csrf=[0-9a-f]{64}; Path=/; Secure; HttpOnly; SameSite=Lax", cookie)
    assert answer.header("Vary") == "Cookie"
    assert send({"Cookie": cookie.partition(";")[0], "X-CSRF-Token": token}).status == 200


def test_without_https_the_cookie_has_a_plain_name() -> None:
    app = CSRFMiddleware(application, secure_cookie=False)
    made = call_wsgi(app)
    cookie = made.header("Set-Cookie")
    assert cookie is not None
    assert re.fullmatch(r"csrf=[0-9a-f]{64}; Path=/; HttpOnly; SameSite=Lax", cookie)
    headers = {"Cookie": cookie.partition(";")[0], "X-CSRF-Token": made.body.decode()}
    assert call_wsgi(app, method="POST", headers=headers).status == 200


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([("Cache-Control", "public, max-age=600")], ["private"]),
        ([("Cache-Control", "max-age=600")], ["private"]),
        ([("Cache-Control", "s-maxage=9"), ("cache-control", "no-store")], ["no-store"]),
        ([("Cache-Control", "private, max-age=5")], ["private, max-age=5"]),
        ([("Cache-Control", "no-store")], ["no-store"]),
        ([("CDN-Cache-Control", "public"), ("Surrogate-Control", "max-age=1")], ["private"]),
        ([], ["private"]),
    ],
)
def test_a_page_with_a_token_stays_out_of_shared_caches(said: list[tuple[str, str]], sent: list[str]) -> None:
    def page_with_token(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        token = str(environ["mks_hardening.csrf_token"]).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Vary", "Accept"), *said])
        return [token]

    headers = call_wsgi(CSRFMiddleware(page_with_token)).headers
    assert [value for name, value in headers if "control" in name.lower()] == sent
    assert [value for name, value in headers if name == "Vary"] == ["Accept", "Cookie"]


def test_tokens_are_new_each_time_and_all_valid() -> None:
    _, cookie, _ = page()
    assert cookie is not None
    pair = cookie.partition(";")[0]
    tokens = [page(pair)[0] for _ in range(20)]
    assert len(set(tokens)) == 20
    assert {send({"Cookie": pair, "X-CSRF-Token": token}).status for token in tokens} == {200}
    assert page(pair)[1] is None


def test_the_secret_is_not_in_the_page() -> None:
    token, cookie, _ = page()
    assert cookie is not None
    assert cookie[12:44] not in token


@pytest.mark.parametrize(
    "change", ["other browser", "no cookie", "cut", "longer", "capitals", "flipped", "junk"]
)
def test_a_token_that_is_not_this_browsers(change: str) -> None:
    token, cookie, _ = page()
    assert cookie is not None
    pair = cookie.partition(";")[0]
    if change == "other browser":
        pair = str(page()[1]).partition(";")[0]
    sent = {
        "cut": token[:-1],
        "longer": token + "0",
        "capitals": token.upper() + "A",
        "flipped": token[:-1] + ("0" if token[-1] != "0" else "1"),
        "junk": "あ" * 64,
    }.get(change, token)
    headers = {"Cookie": "a=b" if change == "no cookie" else pair, "X-CSRF-Token": sent}
    assert send(headers).status == 403


@pytest.mark.parametrize(
    "cookies",
    [
        "__Host-csrf={0}; __Host-csrf={1}",
        "__Host-csrf=",
        "__Host-csrf=short",
        "x__Host-csrf={0}",
        "__Host-csrfx={0}",
        "__host-csrf={0}",
    ],
)
def test_cookies_that_are_not_ours(cookies: str) -> None:
    token, cookie, _ = page()
    secret = str(cookie)[12:76]
    assert send({"Cookie": cookies.format(secret, "0" * 64), "X-CSRF-Token": token}).status == 403
    assert send({"Cookie": f"a=b;__Host-csrf={secret} ;c", "X-CSRF-Token": token}).status == 200


def test_with_a_session_the_token_belongs_to_it() -> None:
    mine, other = Session("secret of mine"), Session("secret of another")
    token, cookie, answer = page(session=mine)
    assert cookie is None
    assert answer.header("Vary") == "Cookie"
    headers = {**COOKIE, "X-CSRF-Token": token}
    assert send(headers, environ={"mks_hardening.session": mine}).status == 200
    assert send(headers, environ={"mks_hardening.session": other}).status == 403
    assert send(headers).status == 403


def test_a_token_from_before_the_sign_in_is_void_after_it() -> None:
    token, cookie, _ = page(session=Session(None))
    headers = {"Cookie": str(cookie).partition(";")[0], "X-CSRF-Token": token}
    assert send(headers, environ={"mks_hardening.session": Session(None)}).status == 200
    assert send(headers, environ={"mks_hardening.session": Session("started")}).status == 403


def test_nothing_is_set_when_no_token_is_asked_for() -> None:
    def silent(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    answer = call_wsgi(silent, wrap=protect)
    assert answer.headers == [("Content-Type", "text/plain")]


def test_two_tokens_of_one_request_share_a_cookie() -> None:
    def twice(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        token = environ["mks_hardening.csrf_token"]
        texts = [str(token), token(), token.__html__()]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [" ".join(texts).encode()]

    answer = call_wsgi(twice, wrap=protect)
    pair = str(answer.header("Set-Cookie")).partition(";")[0]
    tokens = answer.body.decode().split()
    assert len(set(tokens)) == 3
    assert {send({"Cookie": pair, "X-CSRF-Token": token}).status for token in tokens} == {200}


# --- forms --------------------------------------------------------------------------------------------------

MULTIPART = (
    '--xyz\r\nContent-Disposition: form-data; name="title"\r\n\r\nあ\r\n'
    '--xyz\r\nContent-Disposition: form-data; name="file"; filename="csrf_token"\r\n\r\n\x00\xff\r\n'
    '--xyz\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{0}\r\n--xyz--\r\n'
)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", "csrf_token={0}"),
        ("application/x-www-form-urlencoded; charset=UTF-8", "a=1&csrf_token={0}&b=2"),
        ("APPLICATION/X-WWW-FORM-URLENCODED", "csrf_token={0}&x_csrf_token=0"),
        ("multipart/form-data; boundary=xyz", MULTIPART),
        (
            "multipart/form-data; boundary=xyz",
            '--xyz\r\ncontent-disposition: form-data; name="csrf_token"\r\n\r\n{0}\r\n--xyz--\r\n',
        ),
        ('multipart/form-data; charset=utf-8; boundary="xyz"', MULTIPART),
    ],
)
def test_the_token_of_a_form_counts_and_the_body_reaches_the_application(
    content_type: str, body: str
) -> None:
    token, _, _ = page(session=Session("mine"))
    sent = body.format(token).encode()
    headers = {**COOKIE, "Content-Type": content_type}
    answer = send(headers, body=sent, environ={"mks_hardening.session": Session("mine")})
    assert (answer.status, answer.body) == (200, sent)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", "csrf_token={0}"),
        ("application/json", '{{"csrf_token": "{0}"}}'),
        ("application/x-www-form-urlencoded", "csrf_token={0}&csrf_token={0}"),
        ("application/x-www-form-urlencoded", "xcsrf_token={0}"),
        ("application/x-www-form-urlencoded", "csrf_token"),
        ("multipart/form-data", MULTIPART),
        ("multipart/form-data; boundary=other", MULTIPART),
        ("multipart/form-data; boundary=xyz", MULTIPART + MULTIPART),
        ("multipart/form-data; boundary=xyz", "--xyz\r\n\r\n{0}\r\n--xyz--"),
    ],
)
def test_bodies_without_exactly_one_token(content_type: str, body: str) -> None:
    token, _, _ = page(session=Session("mine"))
    headers = {**COOKIE, "Content-Type": content_type}
    sent = body.format(token).encode()
    assert send(headers, body=sent, environ={"mks_hardening.session": Session("mine")}).status == 403


def test_a_large_form_must_send_a_header() -> None:
    token, _, _ = page(session=Session("mine"))
    body = f"csrf_token={token}&x={'a' * 1000}".encode()
    environ = {"mks_hardening.session": Session("mine")}
    assert send({**COOKIE, **FORM}, body=body, environ=environ, max_form_bytes=1000).status == 403
    large = send({**COOKIE, **FORM, "X-CSRF-Token": token}, body=body, environ=environ, max_form_bytes=1000)
    assert (large.status, large.body) == (200, body)


class Trickle(io.RawIOBase):
    """An input that gives three bytes at a time and refuses to be read beyond the declared length."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int = -1) -> bytes:
        assert 0 <= size <= len(self.data) or not self.data
        given, self.data = self.data[: min(size, 3)], self.data[min(size, 3) :]
        return given


def form(body: bytes, **changes: str) -> dict[str, Any]:
    kind = {"CONTENT_TYPE": FORM["Content-Type"], "CONTENT_LENGTH": str(len(body))}
    return {**kind, "wsgi.input": Trickle(body), **changes}


def test_slow_inputs_are_read_whole_and_put_back() -> None:
    environ = form(b"a=1&t=x&b=2")
    assert read_form_field(environ, "t", limit=100) == "x"
    assert environ["wsgi.input"].read() == b"a=1&t=x&b=2"


def test_a_body_shorter_than_declared_is_put_back_as_far_as_it_came() -> None:
    environ = form(b"a=1&t=x", CONTENT_LENGTH="50")
    environ["wsgi.input"] = io.BytesIO(b"a=1&t=x")
    assert read_form_field(environ, "t", limit=100) == "x"
    assert environ["wsgi.input"].read() == b"a=1&t=x"


def test_a_form_may_be_as_large_as_the_limit() -> None:
    assert read_form_field(form(b"t=x"), "t", limit=3) == "x"
    assert read_form_field(form(b"t=x"), "t", limit=2) is None


@pytest.mark.parametrize("length", ["", "-1", "1e3", "²", "9" * 20, "101"])
def test_bodies_of_unknown_or_excessive_length_are_not_touched(length: str) -> None:
    environ = form(b"t=x", CONTENT_LENGTH=length)
    source = environ["wsgi.input"]
    assert read_form_field(environ, "t", limit=100) is None
    assert environ["wsgi.input"] is source
    assert source.data == b"t=x"


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"allowed_origins": OWN}, "allowed_origins"),
        ({"allowed_origins": [OWN + "/"]}, "allowed_origins"),
        ({"allowed_origins": ["null"]}, "allowed_origins"),
        ({"allowed_origins": ["*"]}, "allowed_origins"),
        ({"allowed_origins": ["https://*.example.com"]}, "allowed_origins"),
        ({"allowed_origins": ["www.example.com"]}, "allowed_origins"),
        ({"allowed_origins": ["ftp://www.example.com"]}, "allowed_origins"),
        ({"allowed_origins": [None]}, "allowed_origins"),
        ({"exempt_paths": ["/"]}, "exempt_paths"),
        ({"exempt_paths": ["x"]}, "exempt_paths"),
        ({"max_form_bytes": -1}, "max_form_bytes"),
        ({"max_form_bytes": True}, "max_form_bytes"),
        ({"max_form_bytes": "1"}, "max_form_bytes"),
    ],
)
def test_wrong_settings_are_refused_at_construction(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        protect(application, **options)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("disposition", "found"),
    [
        ('Content-Disposition: form-data; name="csrf_token"', True),
        ('Content-Disposition:form-data;name="csrf_token"', True),
        ("content-disposition:form-data;name=csrf_token", True),
        ('Content-Disposition : form-data ; name = "csrf_token" ', True),
        ('CONTENT-DISPOSITION: Form-Data; NAME="csrf_token"', True),
        ('Content-Disposition: form-data; charset=utf-8; name="csrf_token"', True),
        ('Content-Disposition: form-data; name="csrf\\_token"', True),
        ('Content-Type: text/plain\r\nContent-Disposition: form-data; name="csrf_token"', True),
        ('Content-Disposition: form-data; name="other"', False),
        ('Content-Disposition: form-data; x="; name=csrf_token"', False),
        ('Content-Disposition: form-data; name="csrf_token"; name="other"', False),
        ('Content-Disposition: form-data; name="csrf_token"; filename="a.txt"', False),
        ("Content-Disposition: form-data; name=csrf_token; filename*=utf-8''a", False),
        ('Content-Disposition: attachment; name="csrf_token"', False),
        ('Content-Disposition: form-data; name="csrf_token', False),
        ("Content-Disposition: form-data", False),
        ('X-Content-Disposition: form-data; name="csrf_token"', False),
        (
            'Content-Disposition: form-data; name="csrf_token"\r\nContent-Disposition: form-data; name="a"',
            False,
        ),
    ],
)
def test_parts_of_a_form_are_read_as_the_standard_writes_them(disposition: str, *, found: bool) -> None:
    body = f"--xyz\r\n{disposition}\r\n\r\nvalue\r\n--xyz--\r\n".encode()
    environ = {
        "CONTENT_TYPE": "multipart/form-data; boundary=xyz",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    assert read_form_field(environ, "csrf_token", limit=10_000) == ("value" if found else None)
    assert environ["wsgi.input"].read() == body  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("referer", "seen"), [("nonsense", "malformed"), ("https://evil.test/a?b", "https://evil.test")]
)
def test_a_refusal_shows_of_a_referer_no_more_than_its_origin(referer: str, seen: str) -> None:
    sender = RequestSender("https", "a.example", 443, None, None, referer, has_cookies=True, has_bearer=False)
    assert SameOrigin(()).violation(sender) == ("referer", seen)


@pytest.mark.parametrize("cookies", ["", "other=1", "__Host-csrf=short"])
def test_a_browser_without_a_secret_has_no_token_not_even_that_of_an_empty_one(cookies: str) -> None:
    mask = bytes(range(16))
    of_nothing = hmac.digest(b"", b"mks_hardening.csrf", "sha256")[:16]
    forged = (mask + bytes(a ^ b for a, b in zip(mask, of_nothing, strict=True))).hex()
    assert not CSRFToken(None, cookies).accepts(forged)


@pytest.mark.parametrize(
    ("fetch_site", "passes"),
    [("same-origin", True), ("same-site", False), ("cross-site", False), ("none", False), (None, False)],
)
def test_another_port_of_the_host_may_send_only_where_the_browser_calls_it_the_same_origin(
    fetch_site: str | None, *, passes: bool
) -> None:
    sender = RequestSender(
        scheme="http",
        host="www.example.com",
        port=8000,
        origin="https://www.example.com",
        fetch_site=fetch_site,
        referer=None,
        has_cookies=True,
        has_bearer=False,
    )
    assert (SameOrigin(()).violation(sender) is None) is passes
