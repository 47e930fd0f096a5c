"""Security headers: own resources only, scripts by nonce, images from data URIs for the QR code."""

from __future__ import annotations

from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import HSTS, ContentSecurityPolicy, HeaderPolicy


def header_policy(settings: HardeningSettings) -> HeaderPolicy:
    """Build the header policy from the settings."""
    csp = ContentSecurityPolicy(
        {
            "default-src": "'none'",
            "base-uri": "'none'",
            "connect-src": "'self'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "img-src": "'self' data:",
            "manifest-src": "'self'",
            "object-src": "'none'",
            "style-src": "'self'",
            "worker-src": "'self'",
        },
        nonce=True,
    )
    wsgi = settings.wsgi
    hsts = HSTS(wsgi.hsts_max_age, include_subdomains=wsgi.hsts_include_subdomains) if wsgi.hsts else None
    # Default for responses without Cache-Control: no shared caching. Behind nginx, the edge would set it too.
    return HeaderPolicy.web(
        hsts=hsts, csp=csp, referrer_policy="same-origin", cache_control="no-cache, private"
    )
