"""WebSockets before they are accepted: TLS, host, origin, session, limits, maintenance, and the record of each."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from asgi_server import ALL_EXTENSIONS, Server, call, hello, run, socket
from mks_hardening.asgi import (
    CORSMiddleware,
    CORSPolicy,
    CSRFMiddleware,
    CustomResponse,
    HeaderPolicy,
    HTTPSRedirectMiddleware,
    MaintenanceMiddleware,
    MaintenanceSwitch,
    MemorySessionStore,
    ProxyTrust,
    RateLimitMiddleware,
    RateLimitRule,
    RequestLoggingMiddleware,
    SecurityHeadersMiddleware,
    SessionHandle,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
)
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock

CONNECT = {"type": "websocket.connect"}
ACCEPTED = ["websocket.accept", "websocket.close"]
PLAIN = {name: value for name, value in ALL_EXTENSIONS.items() if name != "websocket.http.response"}
OWN = "https://www.example.com"


def refusal_of(app: Any, scope: dict[str, Any]) -> tuple[int, bytes, Server] | None:
    """Status and body of the denial, which is an extension of servers; ``None`` if the socket was accepted."""
    denied, closed = call(app, dict(scope), CONNECT), call(app, {**scope, "extensions": PLAIN}, CONNECT)
    if denied.types == ACCEPTED:
        assert closed.types == ACCEPTED
        return None
    assert closed.sent == [{"type": "websocket.close", "code": 1008}]
    assert denied.types == ["websocket.http.response.start", "websocket.http.response.body"]
    start, body = denied.sent
    assert start["status"] >= 400
    assert denied.header("content-length") == str(len(body["body"]))
    return start["status"], body["body"], denied


# --- TLS and host


def redirecting(**options: Any) -> Any:
    return HTTPSRedirectMiddleware(hello, allowed_hosts=["www.example.com", "api.example.com"], **options)


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({}, None),
        ({"scheme": "ws"}, 403),
        ({"scheme": "https"}, None),
        ({"scheme": "http"}, 403),
        ({"headers": {"Host": "evil.test"}}, 400),
        ({"scheme": "ws", "headers": {"Host": "evil.test"}}, 400),
        ({"scheme": "ws", "headers": {"X-Forwarded-Proto": "https"}}, 403),
        ({"scheme": "ws", "client": ("10.0.0.9", 1), "headers": {"X-Forwarded-Proto": "wss"}}, None),
        ({"scheme": "ws", "client": ("10.0.0.9", 1), "headers": {"X-Forwarded-Proto": "https"}}, None),
        ({"scheme": "wss", "client": ("10.0.0.9", 1), "headers": {"X-Forwarded-Proto": "http"}}, 403),
        ({"scheme": "wss", "client": ("10.0.0.9", 1), "headers": {"X-Forwarded-Proto": "ws"}}, 403),
        ({"scheme": "ws", "path": "/.well-known/acme-challenge/x"}, None),
        ({"scheme": "ws", "path": "/livez", "headers": {"Host": "10.1.1.1"}}, None),
    ],
)
def test_clear_sockets_and_wrong_hosts_are_refused(scope: dict[str, Any], status: int | None) -> None:
    app = redirecting(trust=ProxyTrust(["10.0.0.0/8"]))
    refused = refusal_of(app, socket(**{"path": "/", **scope}))
    assert (refused and refused[0]) == status


def test_another_host_than_the_canonical_one_is_no_reason() -> None:
    app = redirecting(canonical_host="www.example.com")
    assert refusal_of(app, socket(headers={"Host": "api.example.com"})) is None
    refused = refusal_of(app, socket(scheme="ws", headers={"Host": "api.example.com"}))
    assert refused is not None
    assert refused[0] == 403


def test_the_scope_of_a_socket_says_what_the_proxy_said() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(
            (scope["scheme"], scope["client"], scope["root_path"], scope["path"], dict(scope["headers"]))
        )
        await send({"type": "websocket.close"})

    headers = {
        "Host": "inner",
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "wss",
        "X-Forwarded-Host": "www.example.com",
        "X-Forwarded-Prefix": "/shop",
    }
    trusted = TrustedProxyMiddleware(app, trust=ProxyTrust(["10.0.0.0/8"]))
    call(trusted, socket("/live", scheme="ws", client=("10.0.0.9", 1), headers=headers), CONNECT)
    call(trusted, socket("/live", scheme="ws", headers=headers), CONNECT)
    (scheme, client, root, path, fields), outside = seen
    assert (scheme, client[0], root, path) == ("wss", "203.0.113.9", "/shop", "/shop/live")
    assert fields[b"host"] == b"www.example.com"
    assert outside == ("ws", ("192.0.2.7", 40000), "", "/live", {b"host": b"inner"})


# --- origin


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": OWN, "Cookie": "session=1"}, None),
        ({"Origin": "https://partner.test"}, None),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "https://evil.test", "Cookie": "session=1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://www.example.com"}, 403),
        ({"Origin": "https://www.example.com.evil.test"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Cookie": "session=1"}, 403),
        ({}, None),
        ({"Authorization": "Bearer x"}, None),
    ],
)
def test_a_page_of_another_site_opens_no_socket(headers: dict[str, str], status: int | None) -> None:
    app = CSRFMiddleware(hello, allowed_origins=["https://partner.test"], exempt_paths=["/open/"])
    refused = refusal_of(app, socket(headers=headers))
    assert (refused and refused[0]) == status
    assert refusal_of(app, socket("/open/x", headers=headers)) is None


def test_two_origins_are_none() -> None:
    headers = [(b"host", b"www.example.com"), (b"origin", OWN.encode()), (b"origin", b"https://evil.test")]
    for fields in (headers, headers[:1] + headers[:0:-1]):
        refused = refusal_of(CSRFMiddleware(hello), socket(headers=fields))
        assert refused is not None
        assert refused[0] == 403


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "CONNECT", "", None, 7])
def test_a_server_that_names_a_method_changes_nothing(
    method: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The specification gives a WebSocket none; GET would be safe, and a value of another type breaks nothing."""
    scope = {**socket(headers={"Origin": "https://evil.test", "Cookie": "session=1"}), "method": method}
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        refused = refusal_of(RequestLoggingMiddleware(CSRFMiddleware(hello)), scope)
    assert refused is not None
    assert refused[0] == 403
    assert {vars(record)["method"] for record in caplog.records} == {"GET"}


# --- session


class Site:
    def __init__(self, app: Any = hello, **options: Any) -> None:
        self.clock = FrozenClock()
        self.app = SessionTimeoutMiddleware(
            app, store=MemorySessionStore(), clock=self.clock, idle_timeout=600, **options
        )

    def cookie(self) -> str:
        handle = self.app.open(None)
        run(handle.astart("alice"))
        return f"__Host-mks-session={handle.session_id}"


def test_the_session_is_judged_before_the_socket_is_accepted() -> None:
    site = Site()
    cookie = site.cookie()
    assert refusal_of(site.app, socket(headers={"Cookie": cookie})) is None
    assert refusal_of(site.app, socket()) is None
    site.clock.advance(600)
    refused = refusal_of(site.app, socket(headers={"Cookie": cookie}))
    assert refused is not None
    status, body, server = refused
    assert status == 401
    assert b"idle" in body or b"revoked" in body
    assert server.header("x-session-timeout-reason") in ("idle", "revoked")


def test_a_socket_is_never_sent_to_a_sign_in_page() -> None:
    site = Site(sign_in_url="/in?next={next}")
    dead = {"Cookie": "__Host-mks-session=" + "A" * 43, "Accept": "text/html"}
    for path in ("/live", "/live.js"):  # no part of a page either
        refused = refusal_of(site.app, socket(path, headers=dead))
        assert refused is not None
        assert refused[0] == 401


def test_the_handle_works_on_the_loop_and_its_cookie_is_in_the_handshake() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        handle: SessionHandle = scope["mks_hardening.session"]
        await handle.astart("bob")
        await send({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
        with pytest.raises(RuntimeError, match="begun"):
            await handle.arotate()
        await send({"type": "websocket.close"})

    server = call(Site(app).app, socket(), CONNECT)
    assert server.header("x-own") == "1"
    assert (server.header("set-cookie") or "").startswith("__Host-mks-session=")


# --- limits, maintenance, headers


def test_opening_a_socket_counts_as_a_request() -> None:
    limiter = RateLimiter({"sockets": "2 per minute"})
    app = RateLimitMiddleware(hello, limiter=limiter, rules=[RateLimitRule("sockets", path="/live")])
    assert refusal_of(app, socket("/live")) is None  # two of them
    refused = refusal_of(app, socket("/live"))
    assert refused is not None
    assert refused[0] == 429
    assert refused[2].header("retry-after") is not None
    assert refusal_of(app, socket("/other")) is None
    other = {"client": ("192.0.2.8", 1)}
    assert refusal_of(app, socket("/live", **other)) is None


def test_maintenance_refuses_sockets(tmp_path: Any) -> None:
    (tmp_path / "on").touch()
    app = MaintenanceMiddleware(hello, switch=MaintenanceSwitch(tmp_path / "on"))
    refused = refusal_of(app, socket())
    assert refused is not None
    assert refused[0] == 503


def test_cors_says_nothing_to_sockets() -> None:
    app = CORSMiddleware(hello, policy=CORSPolicy([OWN]))
    assert call(app, socket(headers={"Origin": "https://evil.test"}), CONNECT).types == ACCEPTED


def test_a_denial_has_the_security_headers_and_a_handshake_only_its_own() -> None:
    app = SecurityHeadersMiddleware(redirecting(), policy=HeaderPolicy.web())
    refused = refusal_of(app, socket(headers={"Host": "evil.test"}))
    assert refused is not None
    assert refused[2].header("x-content-type-options") == "nosniff"
    assert refused[2].header("strict-transport-security")
    accepted = call(app, socket(), CONNECT)
    assert accepted.header("x-content-type-options") is None


def test_own_words_for_a_denial() -> None:
    app = CSRFMiddleware(hello, on_refusal=lambda scope, refusal: CustomResponse(body=f"no: {refusal.rule}"))
    refused = refusal_of(app, socket(headers={"Origin": "https://evil.test"}))
    assert refused is not None
    assert refused[:2] == (403, b"no: origin")


# --- the record


def recorded(
    app: Any, caplog: pytest.LogCaptureFixture, *requests: Any, **scope: Any
) -> tuple[dict[str, Any], Server]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        server = call(RequestLoggingMiddleware(app), socket(**scope), *(requests or (CONNECT,)))
    (record,) = caplog.records
    return vars(record), server


async def echo(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        else:
            return


def closed(code: int | None) -> dict[str, Any]:
    return {"type": "websocket.disconnect", **({} if code is None else {"code": code})}


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(1000, "ok"), (1001, "ok"), (1005, "ok"), (None, "ok"), (1006, "aborted"), (1011, "aborted")],
)
def test_one_record_for_each_socket(code: int | None, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    data = [{"type": "websocket.receive", "text": "あ"}, {"type": "websocket.receive", "bytes": b"abcd"}]
    said, _ = recorded(echo, caplog, CONNECT, *data, closed(code))
    assert (said["method"], said["status"], said["outcome"], said["bytes"]) == ("GET", 101, outcome, 7)
    assert said["levelname"] == "INFO"


def test_the_record_of_sockets_that_were_not_accepted(caplog: pytest.LogCaptureFixture) -> None:
    async def closes(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": 4000})

    said, _ = recorded(closes, caplog)
    assert (said["status"], said["outcome"]) == (403, "ok")
    for extensions in (PLAIN, ALL_EXTENSIONS):
        said, server = recorded(
            redirecting(), caplog, scheme="ws", headers={"Host": "evil.test"}, extensions=extensions
        )
        assert (said["refused_by"], said["refused_rule"]) == ("https", "host")
        assert said["status"] == (400 if extensions is ALL_EXTENSIONS else 403)
    assert server.header("x-request-id") == said["request_id"]


@pytest.mark.parametrize("accepts", [True, False])
def test_an_error_on_a_socket_is_recorded_and_raised(accepts: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        if accepts:
            await send({"type": "websocket.accept"})
        raise KeyError("mine")

    with caplog.at_level(logging.INFO, "mks_hardening.request"), pytest.raises(KeyError):
        call(RequestLoggingMiddleware(fails), socket(), CONNECT)
    said = vars(caplog.records[0])
    assert (said["status"], said["outcome"], said["exc_type"]) == (
        101 if accepts else 500,
        "error",
        "KeyError",
    )


def test_a_socket_that_the_application_leaves_open_is_closed_by_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def returns(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    said, _ = recorded(returns, caplog)
    assert (said["status"], said["outcome"]) == (101, "ok")
