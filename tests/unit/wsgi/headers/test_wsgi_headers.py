"""The header policies, by their table and by what a table cannot say."""

from __future__ import annotations

import sys
from datetime import timedelta
from operator import itemgetter
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import HSTS, ContentSecurityPolicy, HeaderPolicy, SecurityHeadersMiddleware
from tables import faulty_rows
from wsgi_stacks import CORPUS, corpus_runner, make_headers_stack

WSGI_ONLY = {"test_the_body_is_not_wrapped"}

CASES = corpus_runner().read(CORPUS / "wsgi/headers.jsonl")


def test_the_table_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 40
    assert len({case["id"] for case in CASES}) == len(CASES)


def test_table() -> None:
    runner = corpus_runner()
    assert (
        faulty_rows(CASES, lambda case: runner.faults(case, make_headers_stack), name=itemgetter("id")) == {}
    )


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
    with pytest.raises(ConfigurationError, match="policy must be a HeaderPolicy"):
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


# --- hosts without https


def plain_page(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("www.example.com", True),
        ("www.example.com:8443", True),
        ("localhost.example.com", True),
        ("example", True),
        ("localhost", False),
        ("LOCALHOST:8000", False),
        ("app.localhost", False),
        ("127.0.0.1:8000", False),
        ("192.0.2.7", False),
        ("[::1]:8000", False),
        ("[2001:db8::1]", False),
        ("a b", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("policy", [HeaderPolicy.web(), HeaderPolicy.strict()], ids=["web", "strict"])
def test_addresses_and_this_machine_are_not_bound_to_https(
    host: str, named: bool, policy: HeaderPolicy
) -> None:
    app = SecurityHeadersMiddleware(plain_page, policy=policy)
    over = {
        scheme: call_wsgi(app, scheme=scheme, headers={"Host": host}, environ={"HTTP_HOST": host})
        for scheme in ("https", "http")
    }
    assert (over["https"].header("Strict-Transport-Security") is not None) == named
    assert over["http"].header("Strict-Transport-Security") is None
    upgraded = ["upgrade-insecure-requests" in str(over[s].header("Content-Security-Policy")) for s in over]
    assert upgraded == [True, named]


@pytest.mark.parametrize("status", ["304 Not Modified", "200 OK"])
def test_a_304_leaves_the_nonce_of_the_kept_page_alone(status: str) -> None:
    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [] if status.startswith("304") else [("Content-Type", "text/plain")])
        return []

    answer = call_wsgi(SecurityHeadersMiddleware(application, policy=HeaderPolicy.strict()), scheme="https")
    assert (answer.header("Content-Security-Policy") is None) == status.startswith("304")
    assert answer.header("X-Content-Type-Options") == "nosniff"


# --- values that no browser would heed


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("content_type_options", "no-sniff"),
        ("frame_options", "DENNY"),
        ("frame_options", "ALLOW-FROM https://example.com"),
        ("frame_options", "DENY, SAMEORIGIN"),
        ("referrer_policy", "strict-origin-when-crossorigin"),
        ("referrer_policy", "no-referrer, strict_origin"),
        ("cross_origin_opener_policy", "same-site"),
        ("cross_origin_resource_policy", "none"),
        ("cross_origin_embedder_policy", "require-cors"),
        ("origin_agent_cluster", "1"),
        ("permitted_cross_domain_policies", "no"),
        ("dns_prefetch_control", "of"),
        ("permissions_policy", "geolocation=none"),
        ("permissions_policy", "geolocation 'none'; camera 'none'"),
        ("permissions_policy", "camera=(self example.com)"),
        ("permissions_policy", "camera=()camera=()"),
        ("permissions_policy", "geolocaton=()"),
        ("permissions_policy", "camera=(), fullscren=()"),
    ],
)
def test_a_misspelt_value_is_refused(parameter: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=parameter) as caught:
        HeaderPolicy(**{parameter: value})  # type: ignore[arg-type]  # one parameter after the other
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("frame_options", "SAMEORIGIN"),
        ("frame_options", "sameorigin"),
        ("referrer_policy", "no-referrer, strict-origin-when-cross-origin"),
        ("cross_origin_opener_policy", 'same-origin; report-to="coop"'),
        ("cross_origin_embedder_policy", "credentialless"),
        ("origin_agent_cluster", "?0"),
        ("permissions_policy", 'camera=(), fullscreen=(self "https://maps.example.com"), usb=*, midi=self'),
        ("permissions_policy", "brand-new-thing=()"),
        ("permissions_policy", "ch-ua-platform=(self)"),
        ("cache_control", "private, max-age=60"),
    ],
)
def test_what_browsers_heed_is_sent_as_written(parameter: str, value: str) -> None:
    policy = HeaderPolicy(**{parameter: value})  # type: ignore[arg-type]  # one parameter after the other
    assert value in [sent for _, sent in policy.fields]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"Referrer-Policy": "origin"}, "has a parameter of its own, referrer_policy"),
        ({"x-frame-options": "DENY"}, "has a parameter of its own, frame_options"),
        ({"strict-transport-security": "max-age=1"}, "has a parameter of its own, hsts"),
        ({"Content-Security-Policy": "default-src *"}, "has a parameter of its own, csp"),
        ({"X-Own": "1", "x-own": "2"}, "extra contains x-own twice"),
    ],
)
def test_extra_says_nothing_that_a_parameter_says(extra: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        HeaderPolicy.web(extra=extra)


def test_a_second_policy_that_only_reports_may_be_extra() -> None:
    name = "Content-Security-Policy-Report-Only"
    assert (name, "default-src 'none'") in HeaderPolicy.web(extra={name: "default-src 'none'"}).fields
    reporting = ContentSecurityPolicy({"default-src": "'self'"}, report_only=True)
    with pytest.raises(ConfigurationError, match="csp"):
        HeaderPolicy(csp=reporting, extra={name: "default-src 'none'"})


@pytest.mark.parametrize(
    "directives",
    [
        {"webrtc": "'block'"},
        {"webrtc": "'allow'"},
        {"script-src": "'self' 'trusted-types-eval'"},
        {"script-src": ["'report-sha256'", "'report-sha384'", "'report-sha512'"]},
    ],
)
def test_newer_words_of_the_policy_are_known(directives: dict[str, Any]) -> None:
    policy = ContentSecurityPolicy({"default-src": "'self'", **directives})
    assert next(iter(directives)) in policy.header_value()


@pytest.mark.parametrize("value", ["", "block", "'none'", "'allow' 'block'", "'deny'"])
def test_webrtc_is_allowed_or_blocked(value: str) -> None:
    with pytest.raises(ConfigurationError, match="webrtc"):
        ContentSecurityPolicy({"default-src": "'self'", "webrtc": value})


@pytest.mark.parametrize("preset", [HeaderPolicy.web, HeaderPolicy.strict])
def test_pages_of_the_site_itself_may_ask_for_passkeys(preset: Any) -> None:
    fields = {name.lower(): value for name, value in preset().fields}
    assert "publickey-credentials-get=(self)" in fields["permissions-policy"].split(", ")
