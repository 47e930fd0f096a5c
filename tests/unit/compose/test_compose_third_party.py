"""Middleware of other packages inside a hardened application, with its real classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import combinations
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from flask import Flask, jsonify, request
from flask_talisman import Talisman
from hypercorn.middleware import ProxyFixMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from mks_hardening import asgi, compose, wsgi
from mks_hardening.contrib.asgi_app import Hardening as HardeningASGI
from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi

PROXY, STRANGER = "10.0.0.1", "198.51.100.7"
SETTINGS = HardeningSettings.from_env(
    environ={
        "MKS_ALLOWED_HOSTS": "www.example.com",
        "MKS_TRUSTED_PROXIES": PROXY,
        "MKS_ENV": "staging",
        "MKS_FORCE_HTTPS": "0",
    }
)
# What a client may send: alone, and through a proxy that adds its own values on the right.
SPOOFED = {
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example.org",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": 'for=203.0.113.66;proto=https;host="evil.example.org"',
}
REPORTED = {"X-Forwarded-For": "203.0.113.66, 198.51.100.7", "X-Forwarded-Proto": "https"}


def requests() -> list[tuple[str, dict[str, str]]]:
    some = [dict(fields) for count in (1, 2, 6) for fields in combinations(SPOOFED.items(), count)]
    direct = [(STRANGER, fields) for fields in ({}, *some)]
    # A proxy that is trusted overwrites what the client sent; "evil" through it would be the proxy's fault.
    proxied = [
        (PROXY, REPORTED),
        (PROXY, {**REPORTED, "X-Forwarded-Port": "443", "X-Forwarded-Prefix": "/shop"}),
    ]
    return direct + proxied


# --- WSGI


def seen_by_flask(wrap: Callable[[Any], Any]) -> Flask:
    app = Flask(__name__)
    app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]

    @app.get("/")
    @app.get("/<path:path>")
    def seen(path: str = "") -> Any:
        environ = request.environ
        names = ("REMOTE_ADDR", "wsgi.url_scheme", "SCRIPT_NAME")
        return jsonify(
            [*(environ[name] for name in names), request.host, request.url_root, request.access_route]
        )

    Hardening(app, SETTINGS)
    return app


def proxy_fixes() -> list[Callable[[Any], Any]]:
    return [
        lambda app, n=n: ProxyFix(app, x_for=n, x_proto=n, x_host=n, x_port=n, x_prefix=n)  # type: ignore[misc]
        for n in (1, 2)
    ]


@pytest.mark.parametrize("wrap", proxy_fixes())
def test_proxy_fix_inside_changes_nothing_and_is_logged_once(
    wrap: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    plain = seen_by_flask(lambda app: app)
    assert caplog.text == ""
    fixed = seen_by_flask(lambda app: wrap(wrap(app)))
    assert [record.getMessage() for record in caplog.records] == [
        (
            "werkzeug.middleware.proxy_fix.ProxyFix has no effect: MKS_TRUSTED_PROXIES alone decides about client, "
            "scheme and host"
        )
    ]
    for peer, fields in requests():
        given = {"headers": {"Host": "www.example.com", **fields}, "environ": {"REMOTE_ADDR": peer}}
        found, expected = call_wsgi(fixed, **given), call_wsgi(plain, **given)
        assert (found.status, found.body) == (expected.status, expected.body), (peer, fields)
        assert b"evil" not in found.body
        assert b"203.0.113.66" not in found.body


def test_talisman_inside_is_logged_and_writes_each_field_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "page")
    Hardening(app, SETTINGS)
    Talisman(app, content_security_policy={"default-src": "'none'"}, frame_options="SAMEORIGIN")
    for scheme, status in (("https", 200), ("http", 302)):
        # Talisman believes the field of everybody; only a proxy's is left.
        fields = {"Host": "www.example.com", "X-Forwarded-Proto": scheme}
        assert call_wsgi(app, headers=fields, environ={"REMOTE_ADDR": STRANGER}).status == 302
        answer = call_wsgi(
            app, headers={**fields, "X-Forwarded-For": STRANGER}, environ={"REMOTE_ADDR": PROXY}
        )
        assert answer.status == status
        names = [name.lower() for name, _ in answer.headers]
        assert len(names) == len(set(names))
        assert answer.header("Content-Security-Policy") == "default-src 'none'"
        assert answer.header("X-Frame-Options") == "SAMEORIGIN"
        assert answer.header("Cross-Origin-Opener-Policy")
    told = [record.getMessage() for record in caplog.records if record.name == "mks_hardening.wsgi"]
    assert len(told) == 1
    assert told[0].startswith("Talisman sets header fields")


# --- ASGI


def seen_by_fastapi(*middleware: tuple[Any, dict[str, Any]]) -> Any:
    app = FastAPI()

    @app.get("/")
    async def seen(request: Request) -> list[Any]:
        scope = request.scope
        return [scope["client"][0], scope["scheme"], scope["root_path"], str(request.base_url)]

    for kind, options in middleware:
        app.add_middleware(kind, **options)
    HardeningASGI(app, SETTINGS)
    return app


async def ask(app: Any, peer: str, fields: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(app, client=(peer, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://www.example.com") as client:
        return await client.get("/", headers=fields)


def test_proxy_middleware_inside_changes_nothing_under_asgi(caplog: pytest.LogCaptureFixture) -> None:
    twice = [(ProxyHeadersMiddleware, {"trusted_hosts": "*"})] * 2
    plain, fixed = seen_by_fastapi(), seen_by_fastapi(*twice)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware has no effect"
    ]
    for peer, fields in requests():
        found, expected = (asyncio.run(ask(app, peer, fields)) for app in (fixed, plain))
        assert (found.status_code, found.text) == (expected.status_code, expected.text), (peer, fields)
        assert "evil" not in found.text
        assert "203.0.113.66" not in found.text


class SecurityHeadersMiddleware(BaseHTTPMiddleware):
    """As in mlflow."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Frame-Options"] = "SAMEORIGIN"
        return response


def test_classes_that_only_have_the_name_of_ours_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    app = seen_by_fastapi(
        (SecurityHeadersMiddleware, {}), (HTTPSRedirectMiddleware, {}), (CORSMiddleware, {})
    )
    assert caplog.text == ""
    answer = asyncio.run(ask(app, PROXY, REPORTED))
    assert (answer.status_code, answer.json()[:2]) == (200, [STRANGER, "https"])
    assert answer.headers.get_list("x-frame-options") == ["SAMEORIGIN"]
    redirected = asyncio.run(ask(app, STRANGER, SPOOFED))
    assert (redirected.status_code, redirected.headers["location"]) == (307, "https://www.example.com/")


def test_ours_and_a_second_policy_for_other_origins_are_still_refused() -> None:
    doubled = FastAPI()
    doubled.add_middleware(asgi.SecurityHeadersMiddleware, policy=asgi.HeaderPolicy.web())
    with pytest.raises(ConfigurationError, match="two sources of security headers"):
        compose.harden_asgi(doubled, SETTINGS)

    class OurSessions(asgi.SessionTimeoutMiddleware):
        """Of an application, with another name and module."""

    with pytest.raises(ConfigurationError, match="two sessions"):
        compose.harden_asgi(OurSessions(FastAPI(), store=wsgi.MemorySessionStore()), SETTINGS)
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    with pytest.raises(ConfigurationError, match="already wrapped by CORSMiddleware"):
        compose.harden_asgi(app, SETTINGS, cors_policy=wsgi.CORSPolicy("https://app.example.com"))
    with pytest.raises(ConfigurationError, match="a deep copy of the session, which fails"):
        compose.harden_asgi(ProxyFixMiddleware(FastAPI()), SETTINGS)
