"""The library's wrappers around the pages: public paths, polling paths, wording of rejections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knowledge_system.web.edge_responses import create_rejection_handler
from knowledge_system.web.header_policy import header_policy
from mks_hardening.contrib.flask_app import Hardening

if TYPE_CHECKING:
    from flask import Flask

    from knowledge_system.components import Services

# Polled about every second by monitoring: metrics and outage records cover what they report.
_PROBES = ("/livez", "/readyz", "/healthz")

# These paths do not authenticate, so an expired session cookie is no reason to reject them.
_OPEN = (
    "/api/auth/login",
    "/api/auth/2fa/verify",
    "/api/auth/token/",
    "/api/auth/password-reset",
    "/api/auth/password-reset/",
    "/api/openapi.json",
    "/password/",
    "/sign-in/passkey",
    "/sign-in/provider",
    "/sign-in/provider/",
    "/account/email/confirm",
    "/manifest.webmanifest",
    "/sw.js",
    "/offline",
)


def harden(app: Flask, parts: Services) -> None:
    """Install the library's wrappers: sessions, limits, CSRF protection, nonces, request ids."""
    settings, store = parts.settings.hardening, parts.session_store
    Hardening(
        app,
        settings,
        store=store,
        limiter=parts.limiter,
        sign_in=parts.sign_in,
        required={"database": lambda: parts.engine.connect().close()},
        optional={"cache": parts.cache.ping, **({"sessions": store.ping} if store else {})},
        headers=header_policy(settings),
        sign_in_url="/sign-in?reason={reason}&next={next}",
        public_paths=_OPEN,
        passive_paths=("/api/auth/session", "/api/tasks/", "/api/reports/status/"),
        api_paths=("/api/",),
        # Mail programs send this form (RFC 8058): its signature names the user, whatever the session.
        csrf_exempt_paths=("/mails/stop",),
        record_skip_paths=_PROBES,
        clock=parts.session_clock,
        on_refusal=create_rejection_handler(app),
    )
    parts.opened.callback(app.extensions["mks_hardening"].close)
