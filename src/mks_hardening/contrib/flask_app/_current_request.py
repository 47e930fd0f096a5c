"""Session, CSRF token and CSP nonce of the current request, for views and templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import request, session

from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY

if TYPE_CHECKING:
    from mks_hardening.contrib.flask_app._session import HardenedSession
    from mks_hardening.wsgi import SessionHandle

__all__ = ["csp_nonce", "current_csrf_token", "current_session"]


def current_session() -> SessionHandle:
    """Return the session of the current request, for operations that Flask's lacks: ``rotate``, ``end_others``."""
    return cast("HardenedSession", session).handle


def current_csrf_token() -> str:
    """Return a token for the form field ``csrf_token``, also for templates; empty outside a hardened request."""
    return str(request.environ.get(CSRF_TOKEN_KEY, ""))


def csp_nonce() -> str:
    """Return the nonce for ``<script nonce=...>``; also available in templates. Empty if the policy has none."""
    return str(request.environ.get(CSP_NONCE_KEY, ""))
