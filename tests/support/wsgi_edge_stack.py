"""All wrappers around one application, and an application for real servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mks_hardening.wsgi import (
    CSRFMiddleware,
    HeaderPolicy,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    SecurityHeadersMiddleware,
    TrustedProxyMiddleware,
)

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

HOST = "www.example.com"


def harden(app: WSGIApplication, *trusted: str, hops: int | None = None) -> WSGIApplication:
    """Apply trusted proxies, headers, HTTPS, health and CSRF, from the outside in."""
    app = CSRFMiddleware(app, allowed_origins=[f"https://{HOST}"])
    app = HealthMiddleware(app, required={"itself": lambda: True})
    app = HTTPSRedirectMiddleware(app, allowed_hosts=[HOST], api_paths=["/api/"])
    app = SecurityHeadersMiddleware(app, policy=HeaderPolicy.strict())
    return TrustedProxyMiddleware(app, trust=ProxyTrust(trusted, hops=hops))


def _mirror(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    shown["client_ip"] = environ["mks_hardening.origin"].client_ip
    body = json.dumps(shown).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


application = harden(_mirror, "127.0.0.0/8", "::1", "unix")
"""Behind a proxy on this machine."""

exposed = harden(_mirror)
"""Without a proxy."""

one_hop = harden(_mirror, "127.0.0.1", hops=1)
"""Behind exactly one proxy, which shares its address with the clients of a test."""
