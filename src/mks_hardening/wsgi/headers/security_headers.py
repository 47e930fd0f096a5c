"""Middleware for security header fields."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.headers.header_policy import HeaderPolicy
from mks_hardening._edge.headers.header_rule import HeaderRule, HeaderRules

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["SecurityHeadersMiddleware"]


class SecurityHeadersMiddleware:
    """Middleware that adds the header fields of a policy to every response, unless the application has set them.

    Strict-Transport-Security is sent over HTTPS only, and only if the requested host is a name: never for localhost
    or addresses (browsers must ignore it for addresses, RFC 6797, 8.1). Over plain HTTP such hosts do not get
    ``upgrade-insecure-requests`` either.

    Args:
        app: the WSGI application.
        policy: ``HeaderPolicy.web()``, ``.api()``, ``.strict()`` or one of your own.
        rules: additions for certain paths; the first that matches decides.
    """

    __slots__ = ("_app", "_rules")

    def __init__(
        self, app: WSGIApplication, *, policy: HeaderPolicy, rules: Iterable[HeaderRule] = ()
    ) -> None:
        instance(policy, HeaderPolicy, parameter="policy")
        self._app = wsgi_application(app)
        self._rules = HeaderRules(policy, rules)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        merger = self._rules.merger(
            environ["wsgi.url_scheme"], environ.get("HTTP_HOST", ""), environ.get("PATH_INFO", "")
        )
        if not self._rules.has_nonce:
            return self._app(environ, with_step(start_response, merger.step))
        # 128 bits, new for each response (CSP 3, 7.1).
        nonce = environ[CSP_NONCE_KEY] = os.urandom(16).hex()
        return self._app(
            environ, with_step(start_response, lambda status, headers: merger.step(status, headers, nonce))
        )
