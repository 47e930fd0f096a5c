"""Security headers of these pages: own files only, scripts by nonce, pictures from data URIs for the QR code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening.wsgi import HSTS, ContentSecurityPolicy, HeaderPolicy

if TYPE_CHECKING:
    from mks_hardening.settings import HardeningSettings

__all__ = ["header_policy"]


def header_policy(settings: HardeningSettings) -> HeaderPolicy:
    """The policy for the configured deployment."""
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
    # What says nothing of its own must be in no shared cache; behind nginx the edge would say so as well.
    return HeaderPolicy.web(
        hsts=hsts, csp=csp, referrer_policy="same-origin", cache_control="no-cache, private"
    )
