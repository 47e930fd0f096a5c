"""What holds for every request, however hostile."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_bridge import SHELLS
from edge_shells import over
from mks_hardening._core.origin.forwarded import elements_from_right
from mks_hardening._core.origin.hostname import parse_host
from mks_hardening._core.origin.network_addresses import parse_address
from mks_hardening._core.origin.proxy_trust import client_key
from mks_hardening._core.web.paths import PathRules, is_plain_path
from mks_hardening._edge.csrf.same_origin import RequestSender, SameOrigin
from mks_hardening._edge.https.redirect_target import request_target
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import (
    ContentSecurityPolicy,
    CSRFMiddleware,
    HeaderPolicy,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    SecurityHeadersMiddleware,
)

HOSTS = ["www.example.com", ".example.org"]
PROXIES = ["10.0.0.0/8", "fd00::/8"]

wire = st.text(st.characters(max_codepoint=255), max_size=60)
hostile = st.text(st.sampled_from("ab.:/@\\[]%?#,;=\"' \t\r\n\0é0129-"), max_size=40) | wire
listed = st.sampled_from(["www.example.com", "WWW.example.com.:80", "example.org", "a.b.example.org:8080"])
addresses = st.ip_addresses().map(str)
trusted = st.integers(1, 2**24 - 1).map(lambda number: str(ip_address("10.0.0.0") + number))
spelled = (addresses | trusted).flatmap(
    lambda text: st.sampled_from([text, f"[{text}]:80" if ":" in text else f"{text}:80"])
)
segments = st.sampled_from(["a", "b", "health", "static", ".", "..", "", "a b", "日本"])
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


REDIRECT = {shell: over(shell, HTTPSRedirectMiddleware)(hello, allowed_hosts=HOSTS) for shell in SHELLS}
TRUST = ProxyTrust(PROXIES)
FORWARDED = ProxyTrust(PROXIES, family="forwarded")


@pytest.mark.parametrize("shell", SHELLS)
@given(host=hostile | listed, mount=hostile, path=hostile, query=hostile)
@example(host="www.example.com", mount="@evil.test", path="/x", query="")
@example(host="www.example.com", mount="", path="//evil.test", query="")
@example(host="www.example.com", mount="", path="\\evil.test", query="\r\nSet-Cookie: x")
@example(host="evil.test", mount="", path="/", query="")
def test_no_request_chooses_where_it_is_sent(
    shell: str, host: str, mount: str, path: str, query: str
) -> None:
    answers: list[tuple[str, list[tuple[str, str]]]] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": host,
        "SCRIPT_NAME": mount,
        "PATH_INFO": path,
        "QUERY_STRING": query,
    }
    REDIRECT[shell](environ, lambda status, headers, exc_info=None: answers.append((status, headers)))  # type: ignore[arg-type, return-value]
    status, headers = answers[0]
    if status.startswith("301"):
        location = dict(headers)["Location"]
        assert re.fullmatch(r"https://(?:www\.example\.com|(?:[a-z0-9_-]+\.)*example\.org)/[!-~]*", location)
        assert urlsplit(location).netloc == location.split("/")[2]
        assert "\\" not in location
    else:
        assert status.startswith(("200", "400"))


@given(mount=wire.map(lambda text: "/" + text), path=wire.map(lambda text: "/" + text))
def test_a_target_means_the_same_bytes(mount: str, path: str) -> None:
    assert unquote_to_bytes(request_target(mount, path, "")) == (mount + path).encode("latin-1")


@given(sent=wire.map(lambda text: "/" + text), mount=wire, path=wire)
def test_a_target_as_it_was_sent_means_the_same_bytes(sent: str, mount: str, path: str) -> None:
    as_sent = sent.replace("?", "").replace("#", "")
    decoded = unquote_to_bytes(as_sent.encode("latin-1"))
    target = request_target("", decoded.decode("latin-1"), "", sent=sent)
    assert unquote_to_bytes(target) == (b"" if decoded.startswith(b"/") else b"/") + decoded
    assert re.fullmatch(r"/[!-~]*", target)
    # A target of another path is not believed.
    assert request_target(mount, path, "", sent="/%2Fother") == request_target(mount, path, "")


@given(query=st.text(st.sampled_from("abc=&%2F3d+.-_~!$'()*,;:@/?"), min_size=1))
def test_a_legal_query_passes_as_it_came(query: str) -> None:
    assert request_target("", "/", query) == f"/?{query}"


@given(spoofed=st.lists(hostile, max_size=4), client=addresses, proxies=st.lists(trusted, max_size=4))
def test_what_a_client_writes_never_changes_who_it_is(
    spoofed: list[str], client: str, proxies: list[str]
) -> None:
    """Proxies append; whatever stands to the left of the first address they saw is without effect."""
    address = parse_address(client)
    assert address is not None
    if TRUST._chain.trusts(client):
        return
    genuine = [client, *proxies]
    environ = {"REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", "HTTP_HOST": "www.example.com"}
    listed = {**environ, "HTTP_X_FORWARDED_FOR": ", ".join([*spoofed, *genuine])}
    assert TRUST.resolve(listed).client_ip == str(address)
    quoted = [f'for="[{each}]"' if ":" in each else f"for={each}" for each in genuine]
    elements = {**environ, "HTTP_FORWARDED": ", ".join([*spoofed, *quoted])}
    assert FORWARDED.resolve(elements).client_ip == str(address)


@given(
    peer=addresses | hostile,
    values=st.dictionaries(st.sampled_from(["FOR", "PROTO", "HOST", "PORT", "PREFIX"]), hostile),
)
def test_an_untrusted_peer_is_only_what_it_is(peer: str, values: dict[str, str]) -> None:
    environ: dict[str, Any] = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "www.example.com"}
    alone = ProxyTrust().resolve(environ)
    environ |= {f"HTTP_X_FORWARDED_{name}": value for name, value in values.items()} | {
        "HTTP_FORWARDED": "for=1.2.3.4"
    }
    assert ProxyTrust().admit(environ) == alone
    assert not {key for key in environ if "FORWARDED" in key}


@given(values=st.dictionaries(st.sampled_from(["FOR", "PROTO", "HOST", "PORT", "PREFIX"]), hostile | spelled))
def test_deciding_twice_decides_the_same(values: dict[str, str]) -> None:
    """What is left in the environ says the decision: another reader of the same headers comes to no other one."""
    environ: dict[str, Any] = {
        "REMOTE_ADDR": "10.0.0.1",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "www.example.com",
        **{f"HTTP_X_FORWARDED_{name}": value for name, value in values.items()},
    }
    first = TRUST.admit(environ)
    if not first.host:
        return
    again = {**environ, "REMOTE_ADDR": "10.0.0.1"}
    assert TRUST.resolve(again)._replace(client_ip="") == first._replace(client_ip="")


@given(text=hostile | st.just("").flatmap(lambda _: spelled))
def test_addresses_have_one_spelling(text: str) -> None:
    address = parse_address(text)
    if address is not None:
        assert parse_address(str(address)) == address
        assert client_key(text) == client_key(str(address))
        assert re.fullmatch(r"[0-9a-f.:]+", str(address))


@given(text=hostile)
def test_hosts_have_one_spelling_that_is_safe_to_print(text: str) -> None:
    host = parse_host(text)
    if host is not None:
        assert re.fullmatch(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", host.name)
        assert parse_host(host.name) == (host.name, None)


@given(
    text=hostile,
    tail=st.lists(st.sampled_from(["for=1.2.3.4;proto=https", 'by="a,\\"b"', "for=_x"]), max_size=3),
)
def test_the_right_end_of_forwarded_does_not_depend_on_the_left(text: str, tail: list[str]) -> None:
    alone = list(elements_from_right(", ".join(tail)))
    found = list(elements_from_right(", ".join([text, *tail])))
    assert found[: len(tail)] == alone


@given(path=paths)
def test_an_exemption_is_never_wider_than_the_plain_path(path: str) -> None:
    rules = PathRules(["/health", "/static/"], parameter="exempt_paths")
    plain = path == "/health" or path.startswith("/static/")
    assert rules.match(path) == (plain and is_plain_path(path))


@given(path=paths)
def test_a_restriction_is_never_narrower_than_any_reading(path: str) -> None:
    rules = PathRules(["/health", "/static/"], parameter="path")
    resolved: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del resolved[-1:]
        elif segment not in ("", "."):
            resolved.append(segment)
    if resolved[:1] == ["static"] or resolved == ["health"]:
        assert rules.covers(path)
        assert rules.covers(path.replace("/", "\\"))


@given(
    directives=st.dictionaries(
        st.sampled_from(
            ["default-src", "script-src", "img-src", "sandbox", "upgrade-insecure-requests", "x"]
        ),
        st.lists(
            st.sampled_from(
                ["'self'", "self", "'none'", "https:", "a;b", "a,b", "*", "", "'nonce-a'", "data:"]
            )
        ),
    )
)
def test_a_policy_that_is_accepted_reads_back_as_it_was_written(directives: dict[str, list[str]]) -> None:
    try:
        policy = ContentSecurityPolicy(directives)
    except ConfigurationError:
        return
    read = [part.split() for part in policy.header_value().split("; ")]
    assert {name: values for name, *values in read} == directives
    assert "default-src" in directives
    assert not any(char in policy.header_value().replace("; ", "") for char in ";,\r\n")


names = st.sampled_from(
    ["Content-Type", "X-Frame-Options", "x-frame-options", "Server", "Set-Cookie", "X-Own"]
)


@given(fields=st.lists(st.tuples(names, st.sampled_from(["a", "b"])), max_size=6))
def test_what_the_application_set_is_kept(fields: list[tuple[str, str]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", list(fields))
        return []

    sent: list[list[tuple[str, str]]] = []
    wrapped = SecurityHeadersMiddleware(app, policy=HeaderPolicy.web())
    wrapped({"wsgi.url_scheme": "https"}, lambda status, headers, exc_info=None: sent.append(headers))  # type: ignore[arg-type, return-value]
    kept = [field for field in fields if field[0] != "Server"]
    assert sent[0][: len(kept)] == kept
    added = [name.lower() for name, _ in sent[0][len(kept) :]]
    assert len(set(added)) == len(added)
    assert not set(added) & {name.lower() for name, _ in fields}


CSRF = {
    shell: over(shell, CSRFMiddleware)(hello, allowed_origins=["https://www.example.com"]) for shell in SHELLS
}


@pytest.mark.parametrize("shell", SHELLS)
@given(origin=hostile | st.sampled_from(["https://www.example.com", "https://www.example.com.evil", "null"]))
def test_only_the_listed_origin_passes(shell: str, origin: str) -> None:
    headers = {"Origin": origin, "Cookie": "a=1"}
    status = call_wsgi(CSRF[shell], method="POST", headers=headers).status
    assert (status == 200) is (origin.lower().removesuffix(":443") == "https://www.example.com")


hosts = st.from_regex(r"(?:[a-z0-9]{1,8}\.){0,3}[a-z][a-z0-9]{0,7}|\[2001:db8::[1-9a-f]\]", fullmatch=True)
origins = st.tuples(st.sampled_from(["http", "https"]), hosts, st.sampled_from([80, 443, 8000, 8443]))


@given(
    own=origins, page=origins, fetch_site=st.sampled_from([None, "same-origin", "same-site", "cross-site"])
)
@example(own=("https", "a.b", 443), page=("https", "a.b", 80), fetch_site="same-origin")
def test_a_page_may_send_to_its_own_host_and_to_no_other(
    own: tuple[str, str, int], page: tuple[str, str, int], fetch_site: str | None
) -> None:
    scheme, host, port = page
    sender = RequestSender(
        *own, f"{scheme}://{host}:{port}", fetch_site, None, has_cookies=True, has_bearer=False
    )
    may_send = SameOrigin(()).violation(sender) is None
    assert may_send == (page == own or (host == own[1] and fetch_site == "same-origin"))


@given(text=st.text(max_size=40) | wire, own=origins)
def test_what_is_no_origin_of_the_host_may_not_send(text: str, own: tuple[str, str, int]) -> None:
    sender = RequestSender(*own, text, None, None, has_cookies=False, has_bearer=False)
    fault = SameOrigin(()).violation(sender)
    assert (fault is None) == (text.lower() in _spellings(*own))


def _spellings(scheme: str, host: str, port: int) -> set[str]:
    usual = port == {"http": 80, "https": 443}[scheme]
    names = {host, host + "."} if not host.startswith("[") else {host}
    ports = {f":{port}", *({"", ":"} if usual else ())}
    return {f"{scheme}://{name}{end}" for name in names for end in ports}
