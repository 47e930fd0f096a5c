"""The header policies, by their table and by what a table cannot say."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import HSTS, ContentSecurityPolicy, HeaderPolicy, SecurityHeadersMiddleware
from wsgi_stacks import CORPUS, corpus_runner, make_headers_stack

CASES = corpus_runner().read(CORPUS / "wsgi/headers.jsonl")


def test_the_table_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 40
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_table(case: dict[str, Any]) -> None:
    assert corpus_runner().faults(case, make_headers_stack) == []


def test_the_application_sees_the_nonce_that_is_sent() -> None:
    nonces = set()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["mks_hardening.csp_nonce"].encode()]

    for _ in range(1000):
        answer = call_wsgi(app, wrap=lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.strict()))
        assert f"'nonce-{answer.body.decode()}'" in str(answer.header("Content-Security-Policy"))
        nonces.add(answer.body)
    assert len(nonces) == 1000
    assert all(len(nonce) >= 32 for nonce in nonces)


def test_no_nonce_where_none_is_wanted() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str("mks_hardening.csp_nonce" in environ).encode()]

    assert call_wsgi(SecurityHeadersMiddleware(app, policy=HeaderPolicy.web())).body == b"False"


def test_a_list_that_the_application_keeps_does_not_grow() -> None:
    shared = [("Content-Type", "text/plain"), ("Server", "x")]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", shared)
        return []

    wrapped = SecurityHeadersMiddleware(app, policy=HeaderPolicy.web())
    first, second = call_wsgi(wrapped), call_wsgi(wrapped)
    assert shared == [("Content-Type", "text/plain"), ("Server", "x")]
    assert first.headers == second.headers


def test_a_second_start_with_exc_info_and_write_are_passed_on() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            environ["missing"]
        except KeyError:
            write = start_response(
                "500 Internal Server Error", [("Content-Type", "text/html")], sys.exc_info()
            )
        write(b"written ")
        return [b"returned"]

    answer = call_wsgi(app, wrap=lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.web()))
    assert (answer.status, answer.body) == (500, b"written returned")
    assert answer.header("Content-Type") == "text/html"
    assert answer.header("X-Content-Type-Options") == "nosniff"


def test_the_body_is_not_wrapped() -> None:
    body = [b"x"]
    wrapped = SecurityHeadersMiddleware(lambda environ, start_response: body, policy=HeaderPolicy.strict())
    assert wrapped({"wsgi.url_scheme": "http"}, None) is body  # type: ignore[arg-type]


def test_durations_may_be_timedeltas() -> None:
    assert repr(HSTS(timedelta(days=365))) == "HSTS('max-age=31536000; includeSubDomains')"


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"hsts": 31536000}, "hsts"),
        ({"csp": "default-src 'self'"}, "csp"),
        ({"csp": ContentSecurityPolicy({"default-src": "'self'", "report-to": "x"})}, "csp"),
        ({"referrer_policy": 1}, "referrer_policy"),
        ({"reporting_endpoints": {"A": "/x"}}, "reporting_endpoints"),
        ({"remove": [1]}, "remove"),
    ],
)
def test_faults_name_the_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HeaderPolicy(**options)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("policy", ["web", None, {}])
def test_a_policy_is_asked_for(policy: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=f"policy must be a HeaderPolicy, not {type(policy).__name__}"
    ):
        SecurityHeadersMiddleware(lambda environ, start_response: [], policy=policy)


def test_a_nonce_is_where_script_elements_look_for_it() -> None:
    directives = {"default-src": "'self'", "script-src-elem": "'none'"}
    policy = ContentSecurityPolicy(directives, nonce=True)
    assert (
        policy.header_value("x")
        == "default-src 'self'; script-src-elem 'nonce-x'; script-src 'self' 'nonce-x'"
    )
    assert directives["script-src-elem"] == "'none'"


@pytest.mark.parametrize(
    ("directive", "values"),
    [
        ("report-to", []),
        ("report-uri", []),
        ("require-trusted-types-for", []),
        ("trusted-types", ["'self'"]),
        ("trusted-types", ["none"]),
        ("sandbox", ["'allow-forms'"]),
        ("block-all-mixed-content", ["x"]),
        ("img-src", ["'"]),
        ("img-src", ["''"]),
    ],
)
def test_directives_that_are_no_source_lists_are_checked_too(directive: str, values: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=directive):
        ContentSecurityPolicy({"default-src": "'self'", directive: values})


@pytest.mark.parametrize("directive", ["sandbox", "trusted-types"])
def test_some_directives_may_be_empty(directive: str) -> None:
    policy = ContentSecurityPolicy({"default-src": "'self'", directive: []})
    assert policy.header_value() == f"default-src 'self'; {directive}"


def test_directives_are_a_mapping() -> None:
    with pytest.raises(ConfigurationError, match="mapping"):
        ContentSecurityPolicy([("default-src", "'self'")])  # type: ignore[arg-type]


def test_a_policy_shows_itself() -> None:
    shown = repr(HeaderPolicy.strict())
    assert "default-src 'none'" in shown
    assert "nosniff" in shown
