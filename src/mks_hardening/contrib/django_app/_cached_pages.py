"""Decide which pages of ``cache_page`` may be stored and served: only those that are the same for all visitors."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY, SESSION_KEY
from mks_hardening._edge.response_cache.client_fields import identifies_user
from mks_hardening._edge.response_cache.http_caching import not_storable_reason, variant_names
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import FromDjango, environ_of, project

__all__ = ["UNKNOWN_REQUEST", "current_request", "not_storable_page_reason", "visitor_reason"]

current_request: Final[ContextVar[FromDjango]] = ContextVar("mks_hardening.django.request", default=None)
"""The request that ``HardeningMiddleware`` is handling in this context, or None."""


UNKNOWN_REQUEST: Final = "unknown request"


def not_storable_page_reason(page: FromDjango) -> str | None:
    """Return why a page is not the same for all visitors, or None; see ``visitor_reason`` too."""
    request = current_request.get()
    if request is None:
        return UNKNOWN_REQUEST
    headers = list(page.headers.items())
    if obstacle := not_storable_reason(page.status_code, headers, personal=False):
        return obstacle
    if page.cookies:
        return "set-cookie"
    # Django adds cookies and Vary for them in outer middleware, after the page has been stored.
    environ, session = environ_of(request), getattr(request, "session", None)
    ours = environ.get(SESSION_KEY)
    if (
        getattr(session, "accessed", False)
        or getattr(session, "modified", False)
        or getattr(ours, "was_read", False)
        or getattr(ours, "was_changed", False)
    ):
        return "session"
    token = environ.get(CSRF_TOKEN_KEY)
    if request.META.get("CSRF_COOKIE_NEEDS_UPDATE") or getattr(token, "was_read", False):
        return "csrf token"
    nonce = str(environ.get(CSP_NONCE_KEY) or "")
    if nonce and (nonce.encode() in page.content or any(nonce in value for _name, value in headers)):
        return "nonce"
    return None


def visitor_reason(page: FromDjango) -> str | None:
    """Return why the visitor of the current request neither gets a stored page nor fills the cache, or None.

    That is a sign of a user that is not part of the key of the page.
    """
    request = current_request.get()
    if request is None:
        return None
    meta = request.META
    if meta.get("HTTP_AUTHORIZATION"):
        return "authorization"
    if identifies_user(meta):
        return "identity"
    # What the view makes of session and CSRF token is known; what it makes of other cookies is not.
    known = {components().sessions.cookie_name, project().SESSION_COOKIE_NAME, project().CSRF_COOKIE_NAME}
    cookies = {pair.partition("=")[0].strip() for pair in meta.get("HTTP_COOKIE", "").split(";")} - {""}
    if not cookies <= known and "cookie" not in (variant_names(list(page.headers.items())) or ()):
        return "cookie"
    return None
