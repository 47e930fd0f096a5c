"""What the request at hand has from the wrappers, for views and templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import request, session

from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY

if TYPE_CHECKING:
    from mks_hardening.contrib.flask_app._session import HardenedSession
    from mks_hardening.wsgi import SessionHandle

__all__ = ["csp_nonce", "current_csrf_token", "current_session"]


def current_session() -> SessionHandle:
    """The session of the request at hand, for what Flask's has no word for: ``rotate``, ``end_others``."""
    return cast("HardenedSession", session).handle


def current_csrf_token() -> str:
    """A token for the field ``csrf_token`` of a form; in templates too. Empty outside a hardened request."""
    return str(request.environ.get(CSRF_TOKEN_KEY, ""))


def csp_nonce() -> str:
    """The nonce for ``<script nonce=...>`` of this answer; in templates too. Empty where the policy has none."""
    return str(request.environ.get(CSP_NONCE_KEY, ""))
