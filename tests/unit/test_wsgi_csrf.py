"""Requests that another site makes a browser send."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import CSRFMiddleware
from mks_hardening.wsgi._form_field import read_form_field
from wsgi_stacks import CORPUS, corpus_runner, make_csrf_stack

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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
def test_table(case: dict[str, Any]) -> None:
    assert corpus_runner().faults(case, make_csrf_stack) == []


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
        ({"allowed_origins": []}, "allowed_origins"),
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
