"""Where wrappers meet: in any order, under a mount point, behind a cache, with answers that have no body."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    CSRFMiddleware,
    HeaderPolicy,
    HTTPSRedirectMiddleware,
    MemorySessionStore,
    ProxyTrust,
    RequestLoggingMiddleware,
    SecurityHeadersMiddleware,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
)

WSGI_ONLY = {"test_what_a_wrapper_inside_sets_is_seen_by_one_between"}  # another WSGI middleware between

HOST = "www.example.com"
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "headers": lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.strict()),
    "record": lambda app: RequestLoggingMiddleware(app),  # noqa: PLW0108 - the shell replaces the name
    "session": lambda app: SessionTimeoutMiddleware(app, store=MemorySessionStore()),
    "csrf": lambda app: CSRFMiddleware(app),  # noqa: PLW0108 - the shell replaces the name
}


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/sign-in":
        environ["mks_hardening.session"].start("tanaka")
    if path == "/token":
        str(environ["mks_hardening.csrf_token"])
    status = {"/304": "304 Not Modified", "/204": "204 No Content"}.get(path, "200 OK")
    body = b"" if status[:3] in ("304", "204") or environ["REQUEST_METHOD"] == "HEAD" else b"page"
    fields = [] if not body and status[:3] != "200" else [("Content-Type", "text/plain")]
    start_response(status, fields)
    return [body] if body else []


@pytest.mark.parametrize("order", list(permutations(WRAPPERS)), ids="-".join)
def test_every_order_of_wrappers_gives_one_whole_answer(
    order: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    app: Any = application
    for name in reversed(order):
        app = WRAPPERS[name](app)
    for path, method in [("/", "GET"), ("/", "HEAD"), ("/204", "GET"), ("/304", "GET"), ("/sign-in", "GET")]:
        answer = call_wsgi(app, path, method=method, scheme="https", headers={"Host": HOST})
        names = [name.lower() for name, _ in answer.headers]
        assert len(set(names)) == len(names)
        assert {"x-request-id", "x-content-type-options", "strict-transport-security"} <= set(names)
        assert answer.body == (b"page" if (path, method) in (("/", "GET"), ("/sign-in", "GET")) else b"")
        assert vars(caplog.records[-1])["outcome"] == "ok"
        assert vars(caplog.records[-1])["status"] == answer.status
    evil = call_wsgi(
        app, method="POST", scheme="https", headers={"Host": HOST, "Origin": "https://evil.test"}
    )
    assert evil.status == 403
    seen_outside = order.index("record") < order.index("csrf")
    assert ("refused_by" in vars(caplog.records[-1])) == seen_outside


@pytest.mark.parametrize("path", ["/token", "/sign-in"])
def test_what_a_wrapper_inside_sets_is_seen_by_one_between(path: str) -> None:
    """A wrapper of somebody else, such as a cache, sees the cookies that wrappers inside it set."""
    seen: list[str] = []

    def foreign(app: Any) -> Any:
        def wrapped(environ: Any, start_response: Any) -> Any:
            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                seen.extend(name for name, _ in headers)
                return start_response(status, headers)

            return app(environ, start)

        return wrapped

    inner = SessionTimeoutMiddleware(CSRFMiddleware(application), store=MemorySessionStore())
    app = SecurityHeadersMiddleware(foreign(inner), policy=HeaderPolicy.web())
    call_wsgi(app, path, scheme="https")
    assert "Set-Cookie" in seen
    assert "Content-Security-Policy" not in seen


# --- under a mount point


def mounted(**options: Any) -> Any:
    settings = HardeningSettings.from_env(
        environ={"MKS_ALLOWED_HOSTS": f".{HOST}", "MKS_TRUSTED_PROXIES": "127.0.0.1"}
    )
    return harden_wsgi(application, settings, **options)


def ask(
    app: Any, path: str, *, prefix: str, by_proxy: bool, proto: str = "https", **how: Any
) -> WSGIResponse:
    headers = {"Host": HOST, "X-Forwarded-Proto": proto, "X-Forwarded-For": "203.0.113.9"}
    headers |= {"X-Forwarded-Prefix": prefix} if by_proxy else {}
    environ = {} if by_proxy else {"SCRIPT_NAME": prefix}
    headers |= how.pop("headers", {})
    return call_wsgi(app, path, headers=headers, environ=environ, **how)


@pytest.mark.parametrize("by_proxy", [False, True], ids=["server", "proxy"])
def test_paths_are_those_below_the_mount_point(*, by_proxy: bool) -> None:
    dead = {"Cookie": "__Host-mks-session=" + "A" * 43}
    app = mounted(
        public_paths=["/open/"], api_paths=["/api/"], csrf_exempt_paths=["/hook"], sign_in_url="/app/sign-in"
    )
    how: dict[str, Any] = {"prefix": "/app", "by_proxy": by_proxy}
    moved = ask(app, "/where", query="a=1", proto="http", **how)
    assert (moved.status, moved.header("Location")) == (301, f"https://{HOST}/app/where?a=1")
    assert ask(app, "/api/x", proto="http", **how).status == 403
    assert ask(app, "/open/x", headers=dead, **how).status == 200
    assert ask(app, "/app/open/x", headers=dead, **how).status == 401
    assert ask(app, "/sign-in", headers=dead, **how).status == 200
    assert ask(app, "/hook", method="POST", headers={"Origin": "https://evil.test"}, **how).status == 200
    assert ask(app, "/livez", proto="http", **how).status == 200
    own = {"Origin": f"https://{HOST}"}
    assert ask(app, "/form", method="POST", headers=own, **how).status == 200


# --- hosts that are not known beforehand


@pytest.mark.parametrize("host", [HOST, f"a.{HOST}", f"a.b.{HOST}:8443", f"A.{HOST}."])
def test_wildcard_hosts_post_to_themselves_alone(host: str) -> None:
    app = mounted()
    name = host.lower().rstrip(".")
    for origin, status in [(f"https://{name}", 200), (f"https://x.{HOST}", 403), (f"http://{name}", 403)]:
        headers = {"Host": host, "X-Forwarded-Proto": "https", "Origin": origin}
        assert call_wsgi(app, "/form", method="POST", headers=headers).status == status


def test_two_wrappers_with_trust_of_their_own_agree() -> None:
    trust = ProxyTrust(["127.0.0.1"])
    seen: list[Any] = []

    def inner(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((environ["wsgi.url_scheme"], environ["mks_hardening.origin"].client_ip))
        start_response("204 No Content", [])
        return []

    stacks = [
        TrustedProxyMiddleware(HTTPSRedirectMiddleware(inner, allowed_hosts=[HOST]), trust=trust),
        HTTPSRedirectMiddleware(
            TrustedProxyMiddleware(inner, trust=trust), allowed_hosts=[HOST], trust=trust
        ),
        RequestLoggingMiddleware(
            HTTPSRedirectMiddleware(inner, allowed_hosts=[HOST], trust=trust), trust=trust
        ),
    ]
    headers = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9, 127.0.0.1"}
    for stack in stacks:
        assert call_wsgi(stack, headers=headers).status == 204
    assert seen == [("https", "203.0.113.9")] * 3
