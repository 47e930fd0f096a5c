"""Middleware that hardens the cookies of the application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.cookies.cookie_policy import CookiePolicy

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers

__all__ = ["CookiePolicyMiddleware"]


class CookiePolicyMiddleware:
    """Middleware that adds ``Secure``, ``HttpOnly`` and ``SameSite`` to the cookies that the application sets.

    See ``CookiePolicy`` for what is added and what is left alone. Use it inside the session and the CSRF
    middleware, around the application.

    Args:
        app: the WSGI application.
        policy: the policy.

    Raises:
        ConfigurationError: ``policy`` is not a ``CookiePolicy``.

    Source: RFC 6265bis (4.1.2, 4.1.3); ASVS 5.0 V3.3.1 to V3.3.4.
    """

    __slots__ = ("_app", "_policy")

    def __init__(self, app: WSGIApplication, *, policy: CookiePolicy) -> None:
        self._app = wsgi_application(app)
        self._policy = instance(policy, CookiePolicy, parameter="policy")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        return self._app(environ, with_step(start_response, self._harden))

    def _harden(self, status: str, headers: Headers) -> str:
        self._policy.apply(headers)
        return status
