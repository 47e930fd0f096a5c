"""The parts of the decision about a request's origin, each by itself: facts in, one value out."""

from __future__ import annotations

import pytest

from mks_hardening._core.origin.forwarded import elements_from_right
from mks_hardening._core.origin.forwarding_headers import kept_fields
from mks_hardening._core.origin.hostname import authority, parse_host, parse_port
from mks_hardening._core.origin.network_addresses import client_key, parse_address, parse_network
from mks_hardening._core.origin.proxy_chain import ProxyChain
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.request_origin import (
    Family,
    ForwardedValues,
    PeerConnection,
    RequestOrigin,
    resolve_origin,
    rewritten_headers,
)
from mks_hardening.exceptions import ConfigurationError

LONG_LABEL = "a" * 63
LONGEST_NAME = ".".join([LONG_LABEL] * 3 + ["a" * 61])


@pytest.mark.parametrize(
    ("said", "own", "prefix"),
    [
        (None, None, ""),
        (None, "/own", "/own"),
        (None, "/own/", "/own"),
        ("", "/own", "/own"),
        ("/", "/own", "/own"),
        ("/app", None, "/app"),
        ("/app//", "/own", "/app"),
        ("/a/b.c_~!$&'()*+,;=:@-", "/own", "/a/b.c_~!$&'()*+,;=:@-"),
        ("/" + "x" * 511, "/own", "/" + "x" * 511),
        ("/" + "x" * 512, "/own", "/own"),
        ("app", "/own", "/own"),
        ("/a//b", "/own", "/own"),
        ("/a b", "/own", "/own"),
        ("/a%2e", "/own", "/own"),
        ("/a/../b", "/own", "/own"),
        ("/a/.", "/own", "/own"),
        ("/..", None, ""),
        ("//evil.example", "/own", "/own"),
    ],
)
def test_where_the_application_is_mounted(said: str | None, own: str | None, prefix: str) -> None:
    assert resolve_origin(PeerConnection(prefix=own), ForwardedValues(prefix=said)).prefix == prefix


@pytest.mark.parametrize(
    ("connection", "said", "scheme", "port", "host"),
    [
        (PeerConnection(scheme="https"), None, "https", 443, ""),
        (PeerConnection(scheme="HTTPS", host="a.example:8443"), None, "https", 8443, "a.example"),
        (PeerConnection(scheme="wss"), None, "https", 443, ""),
        (PeerConnection(scheme="ftp"), None, "http", 80, ""),
        (PeerConnection(), None, "http", 80, ""),
        (PeerConnection(scheme="http"), ForwardedValues(scheme="https"), "https", 443, ""),
        (PeerConnection(scheme="https"), ForwardedValues(scheme=""), "http", 80, ""),
        (PeerConnection(host="a.example:81"), ForwardedValues(port="82"), "http", 82, "a.example"),
        (PeerConnection(host="a.example:81"), ForwardedValues(port="x"), "http", 81, "a.example"),
        (PeerConnection(host="a.example"), ForwardedValues(host="b.example:83"), "http", 83, "b.example"),
        (PeerConnection(host="a.example"), ForwardedValues(host="b b"), "http", 80, ""),
        (PeerConnection(server_name="s.example", server_port="84"), None, "http", 84, "s.example"),
        (PeerConnection(server_name="s.example"), None, "http", 80, "s.example"),
        (PeerConnection(server_port="84"), None, "http", 80, ""),
        (PeerConnection(host="", server_name="s.example"), None, "http", 80, ""),
    ],
)
def test_scheme_host_and_port(
    connection: PeerConnection, said: ForwardedValues | None, scheme: str, port: int, host: str
) -> None:
    origin = resolve_origin(connection, said)
    assert (origin.scheme, origin.port, origin.host) == (scheme, port, host)
    assert origin.peer_trusted is (said is not None)


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("::FFFF:10.0.0.1", None, "10.0.0.1"),
        ("2001:DB8::1", ForwardedValues(), "2001:db8::1"),
        ("", None, "unknown"),
        (None, ForwardedValues(), "unknown"),
        ("10.0.0.1", ForwardedValues(client="192.0.2.7"), "192.0.2.7"),
    ],
)
def test_the_client(peer: str | None, said: ForwardedValues | None, client: str) -> None:
    assert resolve_origin(PeerConnection(peer=peer), said).client_ip == client


ORIGIN = RequestOrigin("192.0.2.7", "https", "a.example", 8443, "/app", peer_trusted=True)


@pytest.mark.parametrize(
    ("family", "said", "origin", "fields"),
    [
        (
            "forwarded",
            ForwardedValues(client="192.0.2.7"),
            ORIGIN,
            {"Forwarded": 'for="192.0.2.7";proto=https;host="a.example:8443"'},
        ),
        (
            "forwarded",
            ForwardedValues(client="2001:db8::1"),
            ORIGIN._replace(port=443),
            {"Forwarded": 'for="[2001:db8::1]";proto=https;host="a.example"'},
        ),
        (
            "forwarded",
            ForwardedValues(),
            ORIGIN._replace(scheme="http", host="", port=80),
            {"Forwarded": 'proto=http;host=""'},
        ),
        (
            "x-forwarded",
            ForwardedValues(client="192.0.2.7"),
            ORIGIN,
            {
                "X-Forwarded-For": "192.0.2.7",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "a.example:8443",
                "X-Forwarded-Port": "8443",
                "X-Forwarded-Prefix": "/app",
            },
        ),
        (
            "x-forwarded",
            ForwardedValues(),
            ORIGIN._replace(prefix="", host=""),
            {
                "X-Forwarded-For": "",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "",
                "X-Forwarded-Port": "8443",
                "X-Forwarded-Prefix": "",
            },
        ),
    ],
)
def test_fields_say_the_decision(
    family: Family, said: ForwardedValues, origin: RequestOrigin, fields: dict[str, str]
) -> None:
    assert rewritten_headers(family, said, origin) == fields


@pytest.mark.parametrize(
    ("ip", "prefix", "key"),
    [
        ("192.0.2.7", 64, "192.0.2.7"),
        ("::ffff:192.0.2.7", 64, "192.0.2.7"),
        ("2001:db8:1:2:3::4", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", 48, "2001:db8:1::/48"),
        ("2001:db8::1", 128, "2001:db8::1/128"),
        ("8000::1", 1, "8000::/1"),
        ("nobody", 64, "unknown"),
        ("", 64, "unknown"),
    ],
)
def test_the_bucket_of_a_client(ip: str, prefix: int, key: str) -> None:
    assert client_key(ip, ipv6_prefix=prefix) == key


def test_a_bucket_is_a_64_by_default_and_its_length_has_bounds() -> None:
    assert client_key("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    for prefix in (0, 129, -1):
        with pytest.raises(ConfigurationError, match=r"^ipv6_prefix .* from 1 to 128$") as caught:
            client_key("192.0.2.7", ipv6_prefix=prefix)
        assert caught.value.parameter == "ipv6_prefix"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:65535", "192.0.2.7"),
        ("192.0.2.7:123456", None),
        ("192.0.2.7:", None),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("[2001:db8::1]80", None),
        ("[2001:db8::1", None),
        ("[192.0.2.7]", None),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("192.0.2.7%eth0", None),
        ("fe80::1%", None),
        ("192.0.2.07", None),
        ("１92.0.2.7", None),
        ("2001:db8::1%" + "e" * 52, "2001:db8::1"),
        ("2001:db8::1%" + "e" * 53, None),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    found = parse_address(text)
    assert (None if found is None else str(found).partition("%")[0]) == (
        None if address is None else address.partition("%")[0]
    )


def test_networks() -> None:
    assert str(parse_network("10.0.0.0/8", parameter="p")) == "10.0.0.0/8"
    assert str(parse_network("::ffff:10.0.0.0/104", parameter="p")) == "10.0.0.0/8"
    assert str(parse_network("::ffff:10.1.2.3", parameter="p")) == "10.1.2.3/32"
    with pytest.raises(
        ConfigurationError, match=r"^p must hold addresses or CIDR networks such as"
    ) as caught:
        parse_network("10.0.0.1/8", parameter="p")
    assert caught.value.parameter == "p"


@pytest.mark.parametrize(
    ("digits", "port"),
    [
        ("1", 1),
        ("65535", 65535),
        ("00080", 80),
        ("0", None),
        ("65536", None),
        ("", None),
        ("000080", None),
        ("²", None),
        ("８0", None),
        ("-1", None),
        ("+80", None),
    ],
)
def test_ports(digits: str, port: int | None) -> None:
    assert parse_port(digits) == port


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("A.Example.", ("a.example", None)),
        ("a.example:", ("a.example", None)),
        ("a.example:80", ("a.example", 80)),
        ("a.example:0", None),
        ("a.example..", None),
        ("-a.example", None),
        ("a_b.svc", ("a_b.svc", None)),
        (f"{LONGEST_NAME}.:65535", (LONGEST_NAME, 65535)),
        (f"a{LONGEST_NAME}", None),
        (f"{LONG_LABEL}a.example", None),
        ("[2001:DB8::1]", ("[2001:db8::1]", None)),
        ("[2001:db8::1]:443", ("[2001:db8::1]", 443)),
        ("[::ffff:1.2.3.4]", ("[::ffff:102:304]", None)),
        ("[::ffff:255.254.1.255]", ("[::ffff:fffe:1ff]", None)),
        ("[::1]443", None),
        ("[::1", None),
        ("[fe80::1%eth0]", None),
        ("[a.example]", None),
        ("ä.example", None),
        ("", None),
        ("a" * 250 + ":" + "1" * 12, None),
    ],
)
def test_hosts(text: str, host: tuple[str, int | None] | None) -> None:
    assert parse_host(text) == host


def test_a_default_port_is_left_away() -> None:
    written = [
        authority(scheme, "a", port)
        for scheme, port in (("http", 80), ("http", 443), ("https", 443), ("https", None), ("ftp", 21))
    ]
    assert written == ["a", "a:443", "a", "a", "a:21"]


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("for=a", [{"for": "a"}]),
        ("for=a, for=b", [{"for": "b"}, {"for": "a"}]),
        ('for="a, b";PROTO=https', [{"for": "a, b", "proto": "https"}]),
        (r'for="a\"b", for=c', [{"for": "c"}, {"for": 'a"b'}]),
        (r'for="a\\", for=c', [{"for": "c"}, {"for": "a\\"}]),
        ('for="a, for=c', [{"for": "c"}]),
        ("for=a;for=b", []),
        ("for=a,,for=b", [{"for": "b"}]),
        ("for=a, =b", []),
        ("for=a;;proto=http", [{"for": "a", "proto": "http"}]),
        ("for=a, for=b\t", [{"for": "b"}, {"for": "a"}]),
        ("", []),
        ("for=" + "a" * 4092, [{"for": "a" * 4092}]),
        ("for=" + "a" * 4093, []),
        ("x" * 5000 + ",for=b", [{"for": "b"}]),
    ],
)
def test_elements_of_forwarded(text: str, elements: list[dict[str, str]]) -> None:
    assert list(elements_from_right(text)) == elements


def test_kept_fields_are_known_ones() -> None:
    assert kept_fields(["X-Real-IP", "x-forwarded-user"], parameter="p") == {"x-real-ip", "x-forwarded-user"}
    for names in (["Proxy"], ["X-Forwarded-For"], ["X-Real-IP", "Cookie"]):
        with pytest.raises(ConfigurationError, match=r"^p may name .*X-Real-IP, .*X-Original-URL") as caught:
            kept_fields(names, parameter="p")
        assert caught.value.parameter == "p"
    with pytest.raises(ConfigurationError, match="p must be a list of header names"):
        kept_fields("X-Real-IP", parameter="p")


# --- the chain of proxies


@pytest.mark.parametrize(
    ("hops", "message"),
    [(0, "hops must be a whole number from 1 to 64"), (65, "hops must be a whole number")],
)
def test_the_number_of_proxies_has_bounds(hops: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        ProxyChain([], hops=hops)
    assert caught.value.parameter == "hops"
    assert ProxyChain([], hops=64).hops == 64


@pytest.mark.parametrize(
    ("proxies", "hops", "peer", "trusted"),
    [
        ([], None, "10.0.0.1", False),
        ([], 1, "10.0.0.1", True),
        ([], 1, None, True),
        (["10.0.0.0/8"], 1, "192.0.2.1", False),
        (["10.0.0.0/8"], None, "10.255.0.1", True),
        (["10.0.0.0/8"], None, "11.0.0.1", False),
        (["10.0.0.0/8"], None, None, False),
        (["10.0.0.0/8"], None, "unix:", False),
        (["unix"], None, None, True),
        (["unix"], None, "", True),
        (["unix"], None, "unix:", True),
        (["unix"], None, "localhost", True),
        (["unix"], None, "127.0.0.1", False),
        (["unix", "10.0.0.0/8"], None, "10.0.0.1", True),
        (["10.0.0.0/8"], None, "nobody", False),
    ],
)
def test_who_is_believed(proxies: list[str], hops: int | None, peer: str | None, *, trusted: bool) -> None:
    assert ProxyChain(proxies, hops=hops).trusts(peer) is trusted


@pytest.mark.parametrize(
    ("hops", "addresses", "hosts", "said"),
    [
        (None, "192.0.2.7", "a", ("192.0.2.7", "a")),
        (None, "192.0.2.7, 10.0.0.2", "a, b", ("192.0.2.7", "a")),
        (None, "192.0.2.9, 192.0.2.7", "a, b", ("192.0.2.7", "b")),
        (None, "junk, 10.0.0.2", "a, b", ("10.0.0.2", "a")),
        (None, "junk", "a", (None, "a")),
        (None, None, "a, b", (None, "b")),
        (None, "10.0.0.3, 10.0.0.2", "a", ("10.0.0.3", "a")),
        (None, "192.0.2.7", None, ("192.0.2.7", None)),
        (2, "192.0.2.7, 10.0.0.2", "a, b", ("192.0.2.7", "a")),
        (2, "192.0.2.9, 192.0.2.7, 10.0.0.2", "x, a, b", ("192.0.2.7", "a")),
        (2, "10.0.0.2", "b", (None, None)),
        (2, "192.0.2.7,\t10.0.0.2 ", "b", ("192.0.2.7", None)),
        (64, ",".join(f"192.0.2.{n}" for n in range(1, 66)), None, ("192.0.2.2", None)),
        (None, ",".join(["192.0.2.9"] + ["10.0.0.2"] * 64), None, ("10.0.0.2", None)),
        (None, ",".join(["192.0.2.9"] + ["10.0.0.2"] * 63), None, ("192.0.2.9", None)),
    ],
)
def test_x_forwarded_is_read_from_the_right(
    hops: int | None, addresses: str | None, hosts: str | None, said: tuple[str | None, str | None]
) -> None:
    found = ProxyChain(["10.0.0.0/8"], hops=hops).from_x_forwarded(addresses, None, hosts, None, None)
    assert (found.client, found.host) == said


@pytest.mark.parametrize(
    ("hops", "text", "said"),
    [
        (None, "for=192.0.2.7;host=a;proto=https", ("192.0.2.7", "https", "a")),
        (None, "for=192.0.2.7;host=a, for=10.0.0.2;host=b;proto=http", ("192.0.2.7", "http", "a")),
        (None, "for=192.0.2.9;host=x, for=192.0.2.7;host=a", ("192.0.2.7", None, "a")),
        (None, "host=a", (None, None, "a")),
        (None, "host=a, proto=https", (None, "https", None)),
        (2, "for=192.0.2.7;host=a, for=10.0.0.2;host=b", ("192.0.2.7", None, "a")),
        (2, "for=192.0.2.7;host=a", (None, None, None)),
        (1, "for=192.0.2.7;host=a, for=10.0.0.2;proto=http", ("10.0.0.2", "http", None)),
        (None, "", (None, None, None)),
    ],
)
def test_forwarded_is_read_from_the_right(
    hops: int | None, text: str, said: tuple[str | None, str | None, str | None]
) -> None:
    found = ProxyChain(["10.0.0.0/8"], hops=hops).from_forwarded(text)
    assert (found.client, found.scheme, found.host) == said


# --- what the application sees


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({}, {}),
        ({"HTTP_X_FORWARDED_FOR": "192.0.2.7"}, {"REMOTE_ADDR": "192.0.2.7"}),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, {"wsgi.url_scheme": "https"}),
        (
            {"HTTP_X_FORWARDED_HOST": "b.example"},
            {"HTTP_HOST": "b.example", "SERVER_NAME": "b.example", "SERVER_PORT": "80"},
        ),
        ({"HTTP_X_FORWARDED_PORT": "81"}, {"HTTP_HOST": "a.example:81", "SERVER_PORT": "81"}),
        ({"HTTP_X_FORWARDED_HOST": "b b"}, {"HTTP_HOST": None}),
        ({"HTTP_X_FORWARDED_PREFIX": "/app/"}, {"SCRIPT_NAME": "/app"}),
        ({"HTTP_X_FORWARDED_PREFIX": "/../"}, {}),
    ],
)
def test_the_environ_says_the_decision(headers: dict[str, str], seen: dict[str, str | None]) -> None:
    environ: dict[str, object] = {
        "REMOTE_ADDR": "10.0.0.1",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "a.example",
        "SERVER_NAME": "a.example",
        "SERVER_PORT": "80",
        "SCRIPT_NAME": "",
    }
    before = dict(environ)
    environ |= headers
    ProxyTrust(["10.0.0.0/8"]).admit(environ)
    for name, value in {**before, **seen}.items():
        assert environ.get(name) == value
