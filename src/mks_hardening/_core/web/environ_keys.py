"""Keys of the WSGI environ that middleware, application and frameworks share."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CSP_NONCE_KEY",
    "CSRF_TOKEN_KEY",
    "DEADLINE_KEY",
    "ORIGIN_KEY",
    "REFUSAL_KEY",
    "REQUEST_ID_KEY",
    "ROUTE_KEY",
    "SESSION_KEY",
    "SLOTS_KEY",
    "header_key",
]

ORIGIN_KEY: Final = "mks_hardening.origin"
"""The ``RequestOrigin``: client, scheme, host; determined once, by the outermost middleware that needs it."""

SESSION_KEY: Final = "mks_hardening.session"
"""The ``SessionHandle``, set by ``SessionTimeoutMiddleware``."""

CSRF_TOKEN_KEY: Final = "mks_hardening.csrf_token"  # noqa: S105 - the name of a key
"""Object whose ``str()`` is a token for a form, set by ``CSRFMiddleware``."""

CSP_NONCE_KEY: Final = "mks_hardening.csp_nonce"
"""Nonce for the scripts of this response, set by ``SecurityHeadersMiddleware``."""

DEADLINE_KEY: Final = "mks_hardening.deadline"
"""The ``RequestDeadline``, set by ``RequestTimeoutMiddleware``; read it with ``request_deadline``."""

SLOTS_KEY: Final = "mks_hardening.slots"
"""Places of the slots that the request holds, set by ``ConcurrencyMiddleware``."""

ROUTE_KEY: Final = "mks_hardening.route"
"""Route pattern of the path, set by the application for the request log."""

REQUEST_ID_KEY: Final = "REQUEST_ID"
"""Id of the request, set by ``RequestLoggingMiddleware``."""

REFUSAL_KEY: Final = "mks_hardening.refusal"
"""The ``Refusal``, if a middleware rejected the request; read by the request log."""


def header_key(name: str) -> str:
    """Return the environ key of a request header field (PEP 3333)."""
    return "HTTP_" + name.upper().replace("-", "_")
