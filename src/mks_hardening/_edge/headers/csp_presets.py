"""The Content-Security-Policy of each preset of ``HeaderPolicy``."""

from __future__ import annotations

from typing import Final

from mks_hardening._edge.headers.csp import ContentSecurityPolicy

__all__ = ["api_csp", "legacy_csp", "strict_csp", "web_csp"]

_NOWHERE: Final = {
    "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'", "object-src": "'none'"
}  # fmt: skip


def api_csp() -> ContentSecurityPolicy:
    """Return the policy for responses that no browser should render."""
    return ContentSecurityPolicy({**_NOWHERE, "default-src": "'none'"})


def web_csp() -> ContentSecurityPolicy:
    """Return the policy for pages that load everything but images in ``data:`` from their own origin."""
    # script-src repeats default-src: without it Chromium reports an error even where a script only tries whether it
    # may use eval, as many libraries do.
    return ContentSecurityPolicy(
        {
            "default-src": "'self'",
            **_NOWHERE,
            "form-action": "'self'",
            "img-src": "'self' data:",
            "script-src": "'self'",
            "upgrade-insecure-requests": True,
        }
    )


def legacy_csp() -> ContentSecurityPolicy:
    """Return the policy of ``web_csp`` with inline scripts and styles, for applications written with them."""
    return web_csp().plus({"script-src": "'unsafe-inline'", "style-src": "'unsafe-inline'"})


def strict_csp() -> ContentSecurityPolicy:
    return ContentSecurityPolicy(
        {
            "default-src": "'none'",
            **_NOWHERE,
            "form-action": "'self'",
            "script-src": "'strict-dynamic'",
            **dict.fromkeys(("connect-src", "font-src", "img-src", "manifest-src", "style-src"), "'self'"),
            "require-trusted-types-for": "'script'",
            "upgrade-insecure-requests": True,
        },
        nonce=True,
    )
