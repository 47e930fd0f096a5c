"""A scope and an environ of the same request lead to the same decisions, whatever its header lines."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.origin.scope_trust import ScopeTrust, direct_origin
from mks_hardening._core.web.asgi_scope import HeaderReader, header
from mks_hardening.asgi import ProxyTrust, request_origin

NAMES = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix")
names = st.sampled_from([*NAMES, "Forwarded", "Host", "X-Real-IP", "Proxy", "Accept"])
parts = st.sampled_from(
    [
        *(
            "10.0.0.1",
            "203.0.113.9",
            "[2001:db8::1]:443",
            "::ffff:10.0.0.1",
            "unknown",
            "junk",
            "",
            " ",
            "\xff",
        ),
        *(
            "https",
            "HTTP",
            "wss",
            "www.example.com",
            "evil.test:8443",
            "a@b",
            "443",
            "99999",
            "/app",
            "//evil",
            "/a/",
        ),
        *(
            'for="[2001:db8::2]";proto=https',
            "for=10.0.0.2;host=a.test",
            'for="',
            "for=203.0.113.7;proto=http",
        ),
    ]
)
values = st.lists(parts, min_size=1, max_size=3).map(",".join)
fields = st.lists(st.tuples(names, values, st.sampled_from([str.lower, str.upper, str])), max_size=8)
peers = st.sampled_from(["10.0.0.9", "fd00::1", "::ffff:10.0.0.9", "198.51.100.1", None])
trusts: Any = st.builds(
    ProxyTrust,
    st.sampled_from([(), ["10.0.0.0/8", "fd00::/8"], ["10.0.0.0/8", "unix"]]),
    family=st.sampled_from(["x-forwarded", "forwarded"]),
)


def environ_of(peer: str | None, scheme: str, root: str, lines: list[tuple[str, str, Any]]) -> dict[str, Any]:
    environ: dict[str, Any] = {"wsgi.url_scheme": scheme, "SCRIPT_NAME": root, "PATH_INFO": "/a"}
    environ |= {"SERVER_NAME": "server.internal", "SERVER_PORT": "8000"}
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    for name, value, _ in lines:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


connections = st.tuples(peers, st.sampled_from(["http", "https"]), st.sampled_from(["", "/mount"]))


@given(trust=trusts, connection=connections, lines=fields, socket=st.booleans())
def test_both_shells_agree_about_the_origin(
    trust: ProxyTrust,
    connection: tuple[str | None, str, str],
    lines: list[tuple[str, str, Any]],
    socket: bool,
) -> None:
    peer, scheme, root = connection
    environ = environ_of(peer, scheme, root, lines)
    scope: dict[str, Any] = {
        "type": "websocket" if socket else "http",
        "scheme": {"http": "ws", "https": "wss"}[scheme] if socket else scheme,
        "path": root + "/a",
        "raw_path": (root + "/a").encode(),
        "root_path": root,
        "headers": [(spelled(name).encode(), value.encode("latin-1")) for name, value, spelled in lines],
        "client": None if peer is None else (peer, 1),
        "server": ("server.internal", 8000),
    }
    before = {**scope, "headers": list(scope["headers"])}
    assert direct_origin(scope) == request_origin(environ)
    admitted: Any = ScopeTrust(trust).admit(scope)
    origin = trust.admit(environ)
    assert scope == before
    assert request_origin(admitted) == origin
    assert admitted["scheme"].replace("ws", "http") == environ["wsgi.url_scheme"]
    assert admitted["root_path"] == environ["SCRIPT_NAME"]
    assert admitted["path"] == environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    assert (admitted["client"] or [None])[0] == environ.get("REMOTE_ADDR")
    seen: dict[str, str] = {}
    for name, value in admitted["headers"]:
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        seen[key] = f"{seen[key]},{value.decode('latin-1')}" if key in seen else value.decode("latin-1")
    assert seen == {key: value for key, value in environ.items() if key.startswith("HTTP_")}


@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from([b"Cookie", b"cookie", b"HOST", b"host", b"origin", b"x"]), st.binary(max_size=4)
        ),
        max_size=6,
    ),
    wanted=st.lists(st.sampled_from([b"cookie", b"host", b"origin", b"x", b"missing"]), max_size=6),
)
def test_fields_read_together_are_those_read_one_by_one(
    lines: list[tuple[bytes, bytes]], wanted: list[bytes]
) -> None:
    scope = {"headers": lines}
    assert HeaderReader(*wanted).read(scope) == [header(scope, name) for name in wanted]
    assert HeaderReader(*wanted).read({}) == [None] * len(wanted)
