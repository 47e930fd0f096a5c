"""Who sent a request: what the tables of the redirect do not show."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.forwarded import elements_from_right
from mks_hardening._core.origin.hostname import HostPort, authority, parse_host, parse_port
from mks_hardening._core.origin.network_addresses import parse_address
from mks_hardening._core.origin.proxy_trust import client_key
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import ProxyTrust, RequestOrigin, TrustedProxyMiddleware, request_origin

PEER = {
    "REMOTE_ADDR": "10.0.0.1",
    "wsgi.url_scheme": "http",
    "HTTP_HOST": "www.example.com",
    "SCRIPT_NAME": "",
    "SERVER_NAME": "server.internal",
    "SERVER_PORT": "8000",
}
FORWARDED = {"HTTP_X_FORWARDED_FOR": "203.0.113.9", "HTTP_X_FORWARDED_PROTO": "https"}
TRUST = ProxyTrust(["10.0.0.0/8"])


def test_the_whole_decision() -> None:
    environ = {
        **PEER,
        **FORWARDED,
        "HTTP_X_FORWARDED_HOST": "Shop.Example.COM.",
        "HTTP_X_FORWARDED_PORT": "8443",
        "HTTP_X_FORWARDED_PREFIX": "/shop/",
    }
    expected = RequestOrigin("203.0.113.9", "https", "shop.example.com", 8443, "/shop", peer_trusted=True)
    assert TRUST.resolve(environ) == expected


def test_without_trust_the_connection_alone_counts() -> None:
    expected = RequestOrigin("10.0.0.1", "http", "www.example.com", 80, "", peer_trusted=False)
    assert ProxyTrust().resolve({**PEER, **FORWARDED}) == expected


def test_resolving_changes_nothing() -> None:
    environ = {**PEER, **FORWARDED, "HTTP_FORWARDED": "for=6.6.6.6"}
    before = dict(environ)
    TRUST.resolve(environ)
    assert environ == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            FORWARDED,
            {"REMOTE_ADDR": "203.0.113.9", "wsgi.url_scheme": "https", "HTTP_HOST": "www.example.com"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_FOR": "6.6.6.6, 203.0.113.9, 10.0.0.2"},
            {"REMOTE_ADDR": "203.0.113.9", "HTTP_X_FORWARDED_FOR": "203.0.113.9"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_PROTO": "http, HTTPS"},
            {"HTTP_X_FORWARDED_PROTO": "https", "wsgi.url_scheme": "https"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_HOST": "a.test, B.test:443"},
            {
                "HTTP_HOST": "b.test",
                "HTTP_X_FORWARDED_HOST": "b.test",
                "SERVER_NAME": "b.test",
                "SERVER_PORT": "443",
            },
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_PORT": "8443"},
            {"HTTP_HOST": "www.example.com:8443", "HTTP_X_FORWARDED_PORT": "8443", "SERVER_PORT": "8443"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_PORT": "99999"},
            {"HTTP_HOST": "www.example.com", "HTTP_X_FORWARDED_PORT": "443", "SERVER_PORT": "443"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_HOST": "a@b"},
            {"HTTP_HOST": None, "HTTP_X_FORWARDED_HOST": None, "SERVER_NAME": "server.internal"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_PREFIX": "/app/"},
            {"SCRIPT_NAME": "/app", "HTTP_X_FORWARDED_PREFIX": "/app"},
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_PREFIX": "//evil"},
            {"SCRIPT_NAME": "", "HTTP_X_FORWARDED_PREFIX": None},
        ),
        ({"HTTP_X_FORWARDED_FOR": "junk"}, {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": None}),
        ({"HTTP_FORWARDED": "for=6.6.6.6"}, {"REMOTE_ADDR": "10.0.0.1", "HTTP_FORWARDED": None}),
    ],
)
def test_the_environ_says_the_decision_and_nothing_else(
    changes: dict[str, str], expected: dict[str, str | None]
) -> None:
    environ: dict[str, Any] = {**PEER, **changes}
    origin = TRUST.admit(environ)
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["mks_hardening.origin"] is origin


def test_the_other_family_is_restated_too() -> None:
    trust = ProxyTrust(["10.0.0.0/8"], family="forwarded")
    environ: dict[str, Any] = {**PEER, "HTTP_FORWARDED": 'for=6.6.6.6, for="[2001:db8::9]:1";proto=https'}
    trust.admit(environ)
    assert environ["HTTP_FORWARDED"] == 'for="[2001:db8::9]";proto=https;host="www.example.com"'
    assert environ["REMOTE_ADDR"] == "2001:db8::9"


def test_an_admitted_environ_is_not_decided_again() -> None:
    environ: dict[str, Any] = {**PEER, **FORWARDED}
    TRUST.admit(environ)
    assert request_origin(environ).client_ip == "203.0.113.9"


def test_without_an_admitted_origin_no_header_is_believed_or_touched() -> None:
    environ: dict[str, Any] = {**PEER, **FORWARDED}
    assert request_origin(environ).client_ip == "10.0.0.1"
    assert environ == {**PEER, **FORWARDED}


@pytest.mark.parametrize("family", ["x-forwarded", "forwarded"])
def test_each_way_to_read_the_headers_leads_to_the_same_decision(family: Any) -> None:
    """Usual headers are read in one go; a header more or less must not change what the others mean."""
    trust = ProxyTrust(["10.0.0.0/8"], family=family)
    usual = {**PEER, **FORWARDED, "HTTP_FORWARDED": "for=203.0.113.9;proto=https"}
    del usual["HTTP_FORWARDED" if family == "x-forwarded" else "HTTP_X_FORWARDED_FOR"]
    usual.pop("HTTP_X_FORWARDED_PROTO") if family == "forwarded" else None
    foreign = "HTTP_FORWARDED" if family == "x-forwarded" else "HTTP_X_FORWARDED_PROTO"
    assert trust.resolve({**usual, foreign: "proto=http"}) == trust.resolve(usual)


def test_the_walk_has_an_end() -> None:
    """Nobody has 64 proxies; what lies further left is not looked at."""
    hops = [f"10.0.1.{number}" for number in range(100)]
    environ = {**PEER, "HTTP_X_FORWARDED_FOR": ", ".join(["203.0.113.9", *hops])}
    assert TRUST.resolve(environ).client_ip == "10.0.1.36"


@pytest.mark.parametrize("hops", [1, 64])
def test_as_many_hops_as_there_may_be(hops: int) -> None:
    values = [f"203.0.113.{number}" for number in range(70)]
    environ = {**PEER, "HTTP_X_FORWARDED_FOR": ", ".join(values)}
    assert ProxyTrust(hops=hops).resolve(environ).client_ip == f"203.0.113.{70 - hops}"


def test_a_second_proxy_wrapper_changes_nothing() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["REMOTE_ADDR"].encode()]

    inside = TrustedProxyMiddleware(app, trust=ProxyTrust(["203.0.113.0/24"]))
    outside = TrustedProxyMiddleware(inside, trust=TRUST)
    headers = {"X-Forwarded-For": "203.0.113.7, 203.0.113.9"}
    assert call_wsgi(outside, headers=headers, environ={"REMOTE_ADDR": "10.0.0.1"}).body == b"203.0.113.9"


@pytest.mark.parametrize(
    "server", [{}, {"SERVER_NAME": "a.test"}, {"SERVER_NAME": "a.test", "SERVER_PORT": "8000"}]
)
def test_a_request_without_host_is_for_the_server_itself(server: dict[str, str]) -> None:
    origin = ProxyTrust().resolve({"REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", **server})
    assert (origin.host, origin.port) == (server.get("SERVER_NAME", ""), int(server.get("SERVER_PORT", 80)))


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies"),
        ({"trusted_proxies": b"10.0.0.0/8"}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies"),
        ({"trusted_proxies": ["proxy.example.com"]}, "trusted_proxies"),
        ({"trusted_proxies": ["*"]}, "trusted_proxies"),
        ({"trusted_proxies": [""]}, "trusted_proxies"),
        ({"trusted_proxies": [10]}, "trusted_proxies"),
        ({"trusted_proxies": [None]}, "trusted_proxies"),
        ({"family": "both"}, "family"),
        ({"hops": 0}, "hops"),
        ({"hops": -1}, "hops"),
        ({"hops": 65}, "hops"),
        ({"hops": True}, "hops"),
        ({"hops": "1"}, "hops"),
        ({"hops": 1.0}, "hops"),
    ],
)
def test_wrong_settings_are_refused_at_construction(arguments: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ProxyTrust(**arguments)
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value)


def test_trust_shows_itself() -> None:
    shown = repr(ProxyTrust(["10.0.0.0/8", "unix"], family="forwarded", hops=2))
    assert shown == "ProxyTrust(('10.0.0.0/8', 'unix'), family='forwarded', hops=2)"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("junk", "unknown"),
    ],
)
def test_client_key(text: str, key: str) -> None:
    assert client_key(text) == key


def test_the_length_of_the_ipv6_network_is_the_callers_choice() -> None:
    assert client_key("2001:db8:1:2::9", ipv6_prefix=48) == "2001:db8:1::/48"
    assert client_key("2001:db8:1:2::9", ipv6_prefix=128) == "2001:db8:1:2::9/128"
    for prefix in (0, 129, -1):
        with pytest.raises(ConfigurationError, match="ipv6_prefix"):
            client_key("2001:db8::1", ipv6_prefix=prefix)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:5", "1.2.3.4"),
        ("[::1]", "::1"),
        ("[::1]:5", "::1"),
        ("::1", "::1"),
        ("fe80::1%25", "fe80::1"),
        ("[fe80::1%eth0]:80", "fe80::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[1.2.3.4]", None),
        ("[::1", None),
        ("[::1]x", None),
        ("[::1]:", None),
        ("1.2.3.4:", None),
        ("1.2.3.4%eth0", None),
        ("fe80::1%", None),
        ("1.2.3", None),
        ("01.2.3.4", None),
        ("１.2.3.4", None),
        ("1.2.3.4 ", None),
        (" ", None),
        ("::1" + " " * 100, None),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    found = parse_address(text)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", ("example.com", None)),
        ("EXAMPLE.com.:80", ("example.com", 80)),
        ("example.com:", ("example.com", None)),
        ("a_b.example.com", ("a_b.example.com", None)),
        ("localhost", ("localhost", None)),
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:8000", ("[::1]", 8000)),
        ("[0:0::1]", ("[::1]", None)),
        ("-example.com", None),
        ("example..com", None),
        ("[::1]8000", None),
        ("[]", None),
        ("[example.com]", None),
        ("[::1%lo]", None),
        ("::1", None),
        ("", None),
        ("ｅxample.com", None),
    ],
)
def test_hosts(text: str, host: tuple[str, int | None] | None) -> None:
    assert parse_host(text) == (None if host is None else HostPort(*host))


@pytest.mark.parametrize(
    "digits", ["", "0", "65536", "-1", "+1", " 1", "1 ", "²", "８", "1_0", "000001", "1.0"]
)
def test_ports_that_are_none(digits: str) -> None:
    assert parse_port(digits) is None


@pytest.mark.parametrize(
    ("scheme", "port", "expected"),
    [
        ("https", 443, "a"),
        ("http", 80, "a"),
        ("https", 80, "a:80"),
        ("http", None, "a"),
        ("wss", 443, "a:443"),
    ],
)
def test_authority(scheme: str, port: int | None, expected: str) -> None:
    assert authority(scheme, "a", port) == expected


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("", []),
        ("for=a", [{"for": "a"}]),
        ("for=a, for=b", [{"for": "b"}, {"for": "a"}]),
        ("For=a;By=b", [{"for": "a", "by": "b"}]),
        (r'for="a\"b"', [{"for": 'a"b'}]),
        (r'for="a\\"', [{"for": "a\\"}]),
        (r'for="a\\", for=b', [{"for": "b"}, {"for": "a\\"}]),
        (r'for="a\\\"b, c", for=d', [{"for": "d"}, {"for": 'a\\"b, c'}]),
        ('for="a,b;c", for=d', [{"for": "d"}, {"for": "a,b;c"}]),
        ('for=""', [{"for": ""}]),
        ("for=a,", []),
        ("for=a,,for=b", [{"for": "b"}]),
        ("for=a;for=b, for=c", [{"for": "c"}]),
        ('for="a, for=b', [{"for": "b"}]),
        ('for=a", for=b', [{"for": "b"}]),
        ("for=\x00, for=b", [{"for": "b"}]),
        ("for=a" + " " * 5000 + ", for=b", [{"for": "b"}]),
        ("for=" + "a" * 5000, []),
    ],
)
def test_forwarded_is_read_from_the_right(text: str, elements: list[dict[str, str]]) -> None:
    assert [dict(element) for element in elements_from_right(text)] == elements


class TestMemo:
    def test_an_answer_is_worked_out_once(self) -> None:
        asked: list[str] = []
        memo = Memo(lambda question: asked.append(question) or question.upper())  # type: ignore[func-returns-value]
        assert [memo["a"], memo["a"], memo["b"]] == ["A", "A", "B"]
        assert asked == ["a", "b"]

    def test_it_never_holds_more_than_it_may(self) -> None:
        memo = Memo(str, entries=3)
        for number in range(10):
            assert memo[number] == str(number)
            assert len(memo) <= 3

    def test_long_questions_are_answered_and_forgotten(self) -> None:
        memo: Memo[Any, int] = Memo(len, longest=4)
        assert memo["long question"] == 13
        assert memo["ab", ("cd", "e")] == 2
        assert len(memo) == 0
        assert memo["ab", "cd"] == 2
        assert len(memo) == 1


# --- fields that products hand on in ways of their own


OTHERS = [
    "Proxy", "True-Client-IP", "X-Real-IP", "X-Original-URL", "X-Rewrite-URL", "CF-Connecting-IP",
    "Fastly-Client-IP", "X-Forwarded-Client-Cert", "X-Forwarded-User", "X-SSL-Client-Verify", "Remote-User",
    "X-Auth-Request-User", "Client-Cert", "SSL-Client-Verify", "Fly-Client-IP", "X-Scheme",
]  # fmt: skip


@pytest.mark.parametrize("usual", [True, False], ids=["usual headers", "without X-Forwarded-Proto"])
@pytest.mark.parametrize("family", ["x-forwarded", "forwarded"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1"], ids=["trusted", "untrusted"])
@pytest.mark.parametrize("name", OTHERS)
def test_no_peer_hands_them_on(name: str, peer: str, family: Any, *, usual: bool) -> None:
    key = "HTTP_" + name.upper().replace("-", "_")
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "a.example", "SCRIPT_NAME": ""}
    environ |= {"HTTP_X_FORWARDED_FOR": "203.0.113.9", "HTTP_FORWARDED": "for=203.0.113.9"}
    if usual:
        environ["HTTP_X_FORWARDED_PROTO"] = "https"
    for _ in range(2):  # decided, then remembered
        seen = {**environ, key: "spoofed"}
        ProxyTrust(["127.0.0.1"], family=family).admit(seen)
        assert key not in seen


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "Proxy"])
def test_a_named_field_is_kept_from_trusted_peers_alone(name: str) -> None:
    trust = ProxyTrust(["127.0.0.1"], keep_headers=[name.lower()])
    key = "HTTP_" + name.upper().replace("-", "_")
    left = {}
    for peer in ("127.0.0.1", "192.0.2.1"):
        environ = {"REMOTE_ADDR": peer, key: "x", "HTTP_HOST": "a.example", "wsgi.url_scheme": "http"}
        trust.admit(environ)
        left[peer] = key in environ
    assert left == {"127.0.0.1": True, "192.0.2.1": False}


@pytest.mark.parametrize("wrong", [["Proxy"], ["X-Forwarded-For"], ["Accept"], "X-Real-IP", [1]])
def test_only_what_would_be_removed_can_be_kept(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="keep_headers"):
        ProxyTrust(["127.0.0.1"], keep_headers=wrong)


INJECTED = {
    "HTTP_X_FORWARDED_HOST": ("X-Forwarded-Host", "evil.example"),
    "HTTP_X_FORWARDED_PORT": ("x-forwarded-port", "8443"),
    "HTTP_X_FORWARDED_PREFIX": ("X-Forwarded-Prefix", "/evil"),
}


@pytest.mark.parametrize("key", INJECTED)
@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1"])
def test_a_field_that_no_proxy_sets_is_not_believed(key: str, peer: str) -> None:
    field, value = INJECTED[key]
    trust = ProxyTrust(["127.0.0.1"], ignore_headers=[field])
    usual = {"REMOTE_ADDR": peer, "HTTP_HOST": "a.example", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}
    usual |= {"HTTP_X_FORWARDED_FOR": "203.0.113.9", "HTTP_X_FORWARDED_PROTO": "https"}
    for _ in range(2):  # decided, then remembered
        environ, plain = {**usual, key: value}, dict(usual)
        assert trust.admit(environ) == trust.admit(plain)
        assert environ == plain


def test_the_other_fields_are_still_read() -> None:
    trust = ProxyTrust(["127.0.0.1"], ignore_headers=["X-Forwarded-Port", "X-Forwarded-Prefix"])
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "a.example", "wsgi.url_scheme": "http"}
    environ |= {key: value for key, (_, value) in INJECTED.items()}
    environ |= {"HTTP_X_FORWARDED_FOR": "203.0.113.9", "HTTP_X_FORWARDED_PROTO": "https"}
    origin = trust.admit(environ)
    assert origin == ("203.0.113.9", "https", "evil.example", 443, "", True)
    assert trust.ignore_headers == {"x-forwarded-port", "x-forwarded-prefix"}


@pytest.mark.parametrize(
    "wrong", [["X-Forwarded-For"], ["X-Forwarded-Proto"], ["X-Real-IP"], "X-Forwarded-Port", [1]]
)
def test_only_these_three_can_be_ignored(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="ignore_headers"):
        ProxyTrust(["127.0.0.1"], ignore_headers=wrong)


def test_there_is_nothing_to_ignore_if_the_family_is_never_read() -> None:
    with pytest.raises(ConfigurationError, match="the family 'forwarded' never reads; omit it") as refused:
        ProxyTrust(["127.0.0.1"], family="forwarded", ignore_headers=["X-Forwarded-Port"])
    assert refused.value.parameter == "ignore_headers"
    ProxyTrust(["127.0.0.1"], family="forwarded", ignore_headers=[])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[::ffff:1.2.3.4]", "[::ffff:102:304]"),
        ("[::FFFF:0102:0304]:80", "[::ffff:102:304]"),
        ("[::ffff:0.0.0.0]", "[::ffff:0:0]"),
        ("[64:ff9b::1.2.3.4]", "[64:ff9b::102:304]"),
    ],
)
def test_a_mapped_host_has_one_spelling_in_every_python(text: str, name: str) -> None:
    host = parse_host(text)
    assert host is not None
    assert host.name == name
