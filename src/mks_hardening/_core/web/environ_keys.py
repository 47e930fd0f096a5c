"""Keys under which wrappers, application and frameworks meet in a WSGI environ."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CSP_NONCE_KEY",
    "CSRF_TOKEN_KEY",
    "ORIGIN_KEY",
    "REFUSAL_KEY",
    "REQUEST_ID_KEY",
    "ROUTE_KEY",
    "SESSION_KEY",
    "header_key",
]

ORIGIN_KEY: Final = "mks_hardening.origin"
"""The ``RequestOrigin``: client, scheme, host; decided once, by the outermost wrapper that needs it."""

SESSION_KEY: Final = "mks_hardening.session"
"""The ``SessionHandle``, from ``SessionTimeoutMiddleware``."""

CSRF_TOKEN_KEY: Final = "mks_hardening.csrf_token"  # noqa: S105 - the name of a key
"""What ``str()`` turns into a token for a form, from ``CSRFMiddleware``."""

CSP_NONCE_KEY: Final = "mks_hardening.csp_nonce"
"""The nonce for scripts of this answer, from ``SecurityHeadersMiddleware``."""

ROUTE_KEY: Final = "mks_hardening.route"
"""Set by the application: the pattern that the path matched, for the request record."""

REQUEST_ID_KEY: Final = "REQUEST_ID"
"""The id of the request, from ``RequestLoggingMiddleware``."""

REFUSAL_KEY: Final = "mks_hardening.refusal"
"""The ``Refusal``, where a wrapper answered in place of the application; read by the request record."""


def header_key(name: str) -> str:
    """The key of a request header field (PEP 3333)."""
    return "HTTP_" + name.upper().replace("-", "_")
