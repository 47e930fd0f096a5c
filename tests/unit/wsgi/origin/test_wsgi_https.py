"""The redirect, by its table and by what a table cannot say."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import pytest

from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import HTTPSRedirectMiddleware, ProxyTrust, TrustedProxyMiddleware
from tables import faulty_rows
from wsgi_stacks import CORPUS, corpus_runner, make_one_wrapper_stack, make_redirect_stack

WSGI_ONLY = {"test_the_application_object_of_a_passed_request_is_untouched"}

CASES = corpus_runner().read(CORPUS / "wsgi/redirect.jsonl")
LISTED = {"Host": "www.example.com"}

pytestmark = pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def redirecting(app: Any = hello, **options: Any) -> HTTPSRedirectMiddleware:
    return HTTPSRedirectMiddleware(app, **{"allowed_hosts": ["www.example.com"], **options})


def test_the_table_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 200
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("stack", [make_redirect_stack, make_one_wrapper_stack])
def test_table(stack: Any) -> None:
    """With trust in a wrapper of its own, and in the redirect itself."""
    assert faulty_rows(CASES, lambda case: corpus_runner().faults(case, stack), name=itemgetter("id")) == {}


def test_the_application_object_of_a_passed_request_is_untouched() -> None:
    body = [b"hello"]
    app = redirecting(lambda environ, start_response: body)
    environ = {"wsgi.url_scheme": "https", "HTTP_HOST": "www.example.com"}
    assert app(environ, None) is body  # type: ignore[arg-type]


def test_head_gets_the_length_without_the_body() -> None:
    answers = [call_wsgi(redirecting(), method=method, headers=LISTED) for method in ("GET", "HEAD")]
    assert (
        answers[0].header("Content-Length")
        == answers[1].header("Content-Length")
        == str(len(answers[0].body))
    )
    assert answers[1].body == b""


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; charset=utf-8"),
        ("TEXT/PLAIN", "text/plain; charset=utf-8"),
        ("text/html, application/json", "application/problem+json"),
    ],
)
def test_a_refusal_speaks_the_language_of_the_client(accept: str | None, content_type: str) -> None:
    answer = call_wsgi(redirecting(), headers={"Host": "evil.test"}, environ={"HTTP_ACCEPT": accept})
    assert answer.status == 400
    assert answer.header("Content-Type") == content_type
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Content-Length") == str(len(answer.body))
    assert b"evil" not in answer.body


def test_refusals_are_counted() -> None:
    seen: list[Any] = []
    add_observer(seen.append)
    try:
        call_wsgi(redirecting(api_paths=["/api/"]), "/", headers={"Host": "evil.test"})
        call_wsgi(redirecting(api_paths=["/api/"]), "/api/x", headers=LISTED)
        call_wsgi(redirecting(), headers=LISTED)
    finally:
        remove_observer(seen.append)
    assert seen == [
        RequestRefused("https", "host", "127.0.0.1"),
        RequestRefused("https", "plain", "127.0.0.1"),
    ]


def test_without_trust_nothing_that_was_forwarded_reaches_the_application() -> None:
    spoofed = {
        **LISTED,
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Host": "evil.test",
        "Forwarded": "for=6.6.6.6",
    }
    answer = call_wsgi(redirecting(), headers=spoofed, scheme="https")
    assert answer.status == 200
    assert not [key for key in answer.environ if "FORWARDED" in key]
    assert answer.environ["mks_hardening.origin"].client_ip == "127.0.0.1"


def test_a_decision_made_outside_is_used_not_made_again() -> None:
    inside = redirecting(trust=ProxyTrust(["203.0.113.0/24"]))
    app = TrustedProxyMiddleware(inside, trust=ProxyTrust(["10.0.0.0/8"]))
    forwarded = {**LISTED, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9, 203.0.113.8"}
    answer = call_wsgi(app, headers=forwarded, environ={"REMOTE_ADDR": "10.0.0.1"})
    assert answer.status == 200
    assert answer.environ["mks_hardening.origin"].client_ip == "203.0.113.8"


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"allowed_hosts": []}, "allowed_hosts"),
        ({"allowed_hosts": "www.example.com"}, "allowed_hosts"),
        ({"allowed_hosts": ["*"]}, "allowed_hosts"),
        ({"allowed_hosts": ["*.example.com"]}, "allowed_hosts"),
        ({"allowed_hosts": ["."]}, "allowed_hosts"),
        ({"allowed_hosts": [""]}, "allowed_hosts"),
        ({"allowed_hosts": ["https://www.example.com"]}, "allowed_hosts"),
        ({"allowed_hosts": ["www.example.com/x"]}, "allowed_hosts"),
        ({"allowed_hosts": ["2001:db8:::1"]}, "allowed_hosts"),
        ({"allowed_hosts": ["www.example.com:80:80"]}, "allowed_hosts"),
        ({"allowed_hosts": [".example.com:80"]}, "allowed_hosts"),
        ({"allowed_hosts": ["faß.example"]}, "allowed_hosts"),
        ({"allowed_hosts": ["a..例え.jp"]}, "allowed_hosts"),
        ({"allowed_hosts": [None]}, "allowed_hosts"),
        ({"https_port": 0}, "https_port"),
        ({"https_port": 65536}, "https_port"),
        ({"https_port": "443"}, "https_port"),
        ({"https_port": True}, "https_port"),
        ({"canonical_host": "other.example.com"}, "canonical_host"),
        ({"canonical_host": "www.example.com:443"}, "canonical_host"),
        ({"canonical_host": "www.example.com/"}, "canonical_host"),
        ({"exempt_paths": ["/"]}, "exempt_paths"),
        ({"exempt_paths": ["health"]}, "exempt_paths"),
        ({"exempt_paths": "/health"}, "exempt_paths"),
        ({"exempt_paths": ["/a//b"]}, "exempt_paths"),
        ({"probe_paths": ["/"]}, "probe_paths"),
        ({"probe_paths": ["/a/../b"]}, "probe_paths"),
        ({"api_paths": ["api/"]}, "api_paths"),
    ],
)
def test_wrong_settings_are_refused_at_construction(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        redirecting(**options)
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value)


@pytest.mark.parametrize("entry", ["2001:db8::1", "[2001:db8::1]", "2001:DB8:0::1"])
def test_an_ipv6_host_may_be_listed_with_and_without_brackets(entry: str) -> None:
    answer = call_wsgi(redirecting(allowed_hosts=[entry]), headers={"Host": "[2001:db8::1]:80"})
    assert answer.header("Location") == "https://[2001:db8::1]/"


def test_a_server_that_decodes_too_much_gets_a_valid_target() -> None:
    environ = {"PATH_INFO": "/日本\ud800", "QUERY_STRING": "q=日"}
    app = redirecting()
    answers: list[Any] = []
    request = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "HTTP_HOST": "www.example.com", **environ}
    app(request, lambda status, headers, exc_info=None: answers.append(dict(headers)))  # type: ignore[arg-type, return-value]
    assert answers[0]["Location"] == "https://www.example.com/%E6%97%A5%E6%9C%AC%ED%A0%80?q=%E6%97%A5"


@pytest.mark.parametrize("port", [1, 65535])
def test_every_port_there_is_may_be_the_target(port: int) -> None:
    answer = call_wsgi(redirecting(https_port=port), headers=LISTED)
    assert answer.header("Location") == f"https://www.example.com:{port}/"


def test_api_paths_may_be_everything() -> None:
    assert call_wsgi(redirecting(api_paths=["/"]), "/x", headers=LISTED).status == 403


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize(
    ("sent", "path", "target"),
    [
        ("/files/a%2Fb", "/files/a/b", "/files/a%2Fb"),
        ("/files/a%2fb%3Fc%23d?x=%2F", "/files/a/b?c#d", "/files/a%2Fb%3Fc%23d?x=%2F"),
        ("/files/%E3%81%82/%2E", "/files/あ/.", "/files/%E3%81%82/%2E"),
        ("/other", "/files/a/b", "/files/a/b"),
        ("http://localhost/files/a%2Fb", "/files/a/b", "/files/a/b"),
        ("//evil.example%2F", "//evil.example/", "//evil.example%2F"),
        ("", "/files/a/b", "/files/a/b"),
    ],
)
def test_a_redirect_keeps_an_escaped_slash(name: str, sent: str, path: str, target: str) -> None:
    """The server decodes the path; what it received tells a slash from ``%2F``."""
    app = HTTPSRedirectMiddleware(hello, allowed_hosts=["localhost"])
    answer = call_wsgi(app, path, query=sent.partition("?")[2], environ={name: sent})
    assert answer.header("Location") == f"https://localhost{target}"
