"""WSGI environ keys that the middleware sets or reads."""

from __future__ import annotations

from mks_hardening._core.web.environ_keys import (
    CSP_NONCE_KEY,
    CSRF_TOKEN_KEY,
    DEADLINE_KEY,
    ORIGIN_KEY,
    REFUSAL_KEY,
    REQUEST_ID_KEY,
    ROUTE_KEY,
    SESSION_KEY,
)

__all__ = [
    "CSP_NONCE_KEY",
    "CSRF_TOKEN_KEY",
    "DEADLINE_KEY",
    "ORIGIN_KEY",
    "REFUSAL_KEY",
    "REQUEST_ID_KEY",
    "ROUTE_KEY",
    "SESSION_KEY",
]
