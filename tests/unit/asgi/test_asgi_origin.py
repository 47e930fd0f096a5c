"""Who sent a request, where a scope differs from an environ."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_server import call, http, socket
from mks_hardening.asgi import (
    HTTPSRedirectMiddleware,
    ProxyTrust,
    RequestLoggingMiddleware,
    RequestOrigin,
    TrustedProxyMiddleware,
    request_origin,
)

PROXY = ("10.0.0.1", 40000)
TRUST = ProxyTrust(["10.0.0.0/8"])
HOST = (b"host", b"www.example.com")


def seen(scope: dict[str, Any], *, trust: ProxyTrust = TRUST) -> dict[str, Any]:
    """The scope that reaches the application behind the middleware."""
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        kind = "http.response.start" if scope["type"] == "http" else "websocket.close"
        await send({"type": kind, "status": 200} if scope["type"] == "http" else {"type": kind})
        if scope["type"] == "http":
            await send({"type": "http.response.body"})

    call(TrustedProxyMiddleware(app, trust=trust), scope)
    return scopes[0]


def lines(*fields: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [HOST, *[(name.encode(), value.encode()) for name, value in fields]]


@pytest.mark.parametrize("make", [http, socket])
def test_the_whole_decision(make: Any) -> None:
    fields = lines(
        ("x-forwarded-for", "203.0.113.9, 10.0.0.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "Shop.Example.COM."),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-prefix", "/shop/"),
    )
    plain = "http" if make is http else "ws"
    scope = seen(make("/a", scheme=plain, client=PROXY, headers=fields))
    expected = RequestOrigin("203.0.113.9", "https", "shop.example.com", 8443, "/shop", peer_trusted=True)
    assert scope["mks_hardening.origin"] == request_origin(scope) == expected
    assert scope["client"][0] == "203.0.113.9"
    assert scope["scheme"] == plain + "s"
    assert scope["server"] == ("shop.example.com", 8443)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/shop", "/shop/a", b"/shop/a")
    assert dict(scope["headers"])[b"host"] == b"shop.example.com:8443"


@pytest.mark.parametrize("make", [http, socket])
def test_a_field_that_no_proxy_sets_is_not_believed(make: Any) -> None:
    trust = ProxyTrust(["10.0.0.0/8"], ignore_headers=["X-Forwarded-Port", "X-Forwarded-Prefix"])
    fields = lines(
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("X-Forwarded-Port", "8443"),
        ("x-forwarded-prefix", "/evil"),
    )
    scope = seen(
        make("/a", scheme="http" if make is http else "ws", client=PROXY, headers=fields), trust=trust
    )
    expected = RequestOrigin("203.0.113.9", "https", "www.example.com", 443, "", peer_trusted=True)
    assert scope["mks_hardening.origin"] == expected
    assert (scope.get("root_path"), scope["path"]) == ("", "/a")
    assert not [name for name, _ in scope["headers"] if name.lower().endswith((b"port", b"prefix"))]


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ([("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
        ([("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9, 10.0.0.3")], "203.0.113.9"),
        ([("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "junk")], "10.0.0.1"),
        ([("x-forwarded-for", "[2001:db8::9]:443")], "2001:db8::9"),
        ([("x-forwarded-for", "::ffff:203.0.113.9")], "203.0.113.9"),
        ([("x-forwarded-for", "<script>")], "10.0.0.1"),
        ([("x_forwarded_for", "6.6.6.6")], "10.0.0.1"),
        ([("x_forwarded_for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
    ],
)
def test_several_lines_are_one_list(fields: list[tuple[str, str]], client: str) -> None:
    scope = seen(http(client=PROXY, headers=lines(*fields)))
    assert scope["client"][0] == request_origin(scope).client_ip == client
    left = [(name, value) for name, value in scope["headers"] if b"orwarded" in name.lower()]
    assert left in ([], [(left[0][0] if left else b"", client.encode())])


@pytest.mark.parametrize("peer", [PROXY, ("198.51.100.1", 1)], ids=["trusted", "untrusted"])
@pytest.mark.parametrize(
    "name",
    [
        *(
            "forwarded",
            "x_forwarded_for",
            "X_FORWARDED_FOR",
            "x-forwarded_host",
            "X_Forwarded_Proto",
            "proxy",
        ),
        *("x-real-ip", "x_real_ip", "true_client_ip", "remote_user", "remote-user", "x_original_url"),
    ],
)
def test_nothing_else_is_handed_on(name: str, peer: Any) -> None:
    """A field with underscores becomes the same variable in a WSGI application that is mounted inside."""
    for _ in range(2):  # decided, then remembered
        scope = seen(
            http(client=peer, headers=lines(("accept", "a/b"), (name, "6.6.6.6"), ("x_other", "kept")))
        )
        assert [name for name, _ in scope["headers"]] == [b"host", b"accept", b"x_other"]


@pytest.mark.parametrize("client", [None, ("", None), ("unix:", 0)])
@pytest.mark.parametrize("trusted", [True, False])
def test_peers_on_a_unix_socket(client: Any, trusted: bool) -> None:
    trust = ProxyTrust(["unix"] if trusted else ["10.0.0.0/8"])
    scope = seen(http(client=client, headers=lines(("x-forwarded-for", "203.0.113.9"))), trust=trust)
    assert request_origin(scope).client_ip == ("203.0.113.9" if trusted else "unknown")


@pytest.mark.parametrize(
    ("path", "root", "raw", "expected"),
    [
        ("/a", "", b"/a", ("/shop", "/shop/a", b"/shop/a")),
        ("/app/a", "/app", b"/app/a", ("/shop", "/shop/a", b"/shop/a")),
        ("/a", "/app", b"/a", ("/shop", "/shop/a", b"/shop/a")),
        ("/日本", "", b"/%E6%97%A5%E6%9C%AC", ("/shop", "/shop/日本", b"/shop/%E6%97%A5%E6%9C%AC")),
        ("/a/b", "", b"/a%2Fb", ("/shop", "/shop/a/b", b"/shop/a%2Fb")),
        ("/", "", None, ("/shop", "/shop/", None)),
        ("", "", b"", ("/shop", "/shop", b"/shop")),
    ],
)
def test_a_prefix_is_part_of_the_path(
    path: str, root: str, raw: bytes | None, expected: tuple[str, str, bytes | None]
) -> None:
    fields = lines(("x-forwarded-prefix", "/shop"), ("x-forwarded-for", "203.0.113.9"))
    scope = seen(http(path, root_path=root, raw_path=raw, client=PROXY, headers=fields))
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == expected


def test_a_mounted_application_of_a_framework_sees_the_same_origin() -> None:
    """Frameworks copy the scope for what they mount; our middleware inside must not change the outer copy."""
    scopes: list[dict[str, Any]] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    inside = RequestLoggingMiddleware(TrustedProxyMiddleware(page, trust=ProxyTrust(["203.0.113.9"])))

    async def framework(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        before = dict(scope)
        await inside({**scope, "root_path": "/mounted"}, receive, send)
        assert scope == before

    headers = lines(("x-forwarded-for", "192.0.2.5, 203.0.113.9"))
    call(TrustedProxyMiddleware(framework, trust=TRUST), http(client=PROXY, headers=headers))
    outer, inner = scopes
    assert request_origin(outer) is request_origin(inner)
    assert request_origin(inner).client_ip == "203.0.113.9"
    assert "REQUEST_ID" in inner
    assert "REQUEST_ID" not in outer


@pytest.mark.parametrize("make", [http, socket])
def test_without_a_middleware_the_connection_alone_counts(make: Any) -> None:
    scope = make(headers=lines(("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "http")))
    assert request_origin(scope) == RequestOrigin(
        "192.0.2.7", "https", "www.example.com", 443, "", peer_trusted=False
    )


@pytest.mark.parametrize(
    ("scope", "location"),
    [
        ({}, "https://www.example.com/a"),
        ({"query_string": b"x=%E6&y=\xff\r\nz"}, "https://www.example.com/a?x=%E6&y=%FF%0D%0Az"),
        ({"path": "/a/b", "raw_path": b"/a%2fb"}, "https://www.example.com/a%2Fb"),
        ({"path": "/\ufffd", "raw_path": b"/%ff"}, "https://www.example.com/%FF"),
        ({"path": "/\ufffd", "raw_path": None}, "https://www.example.com/%EF%BF%BD"),
        ({"path": "/日", "raw_path": None}, "https://www.example.com/%E6%97%A5"),
        ({"path": "/app/x", "root_path": "/app", "raw_path": b"/app/x"}, "https://www.example.com/app/x"),
        ({"path": "/x", "root_path": "/app", "raw_path": b"/x"}, "https://www.example.com/app/x"),
        ({"path": "//evil.test/", "raw_path": b"//evil.test/"}, "https://www.example.com//evil.test/"),
        ({"path": "", "raw_path": b""}, "https://www.example.com/"),
        ({"headers": [(b"Host", b"WWW.example.com.:8080")]}, "https://www.example.com/a"),
        ({"headers": [], "server": ("www.example.com", 80)}, "https://www.example.com/a"),
    ],
)
def test_where_a_redirect_leads(scope: dict[str, Any], location: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    asked = http("/a") | {"scheme": "http", "headers": [HOST]} | scope
    for _ in range(2):
        server = call(HTTPSRedirectMiddleware(app, allowed_hosts=["www.example.com"]), dict(asked))
        assert (server.sent[0]["status"], server.header("location")) == (301, location)
