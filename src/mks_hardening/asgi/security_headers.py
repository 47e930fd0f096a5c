"""Middleware for security header fields."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import instance
from mks_hardening._core.web.asgi_scope import REQUESTS, first_header, path_below_mount
from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.headers.header_policy import HeaderPolicy
from mks_hardening._edge.headers.header_rule import HeaderRule, HeaderRules
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import HEADS, raw_headers, with_headers

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send

__all__ = ["SecurityHeadersMiddleware"]

_SECURE: Final = frozenset({"https", "wss"})


class SecurityHeadersMiddleware:
    """Middleware that adds the header fields of a policy to every response, unless the application has set them.

    Responses that deny a WebSocket get them too. Strict-Transport-Security is sent over HTTPS only, and only if the
    requested host is a name: never for localhost or addresses (browsers must ignore it for addresses, RFC 6797,
    8.1). Over plain HTTP such hosts do not get ``upgrade-insecure-requests`` either.

    Args:
        app: the ASGI application.
        policy: ``HeaderPolicy.web()``, ``.api()``, ``.strict()`` or one of your own.
        rules: additions for certain paths; the first that matches decides.

    Raises:
        ConfigurationError: ``policy`` is not a ``HeaderPolicy``, or ``app`` not an ASGI application.
    """

    __slots__ = ("_app", "_rules")

    def __init__(
        self, app: ASGIApplication, *, policy: HeaderPolicy, rules: Iterable[HeaderRule] = ()
    ) -> None:
        instance(policy, HeaderPolicy, parameter="policy")
        self._app = asgi_application(app)
        self._rules = HeaderRules(policy, rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in REQUESTS:
            await self._app(scope, receive, send)
            return
        secure = scope.get("scheme") in _SECURE
        merger = self._rules.merger(
            "https" if secure else "http", first_header(scope, b"host") or "", path_below_mount(scope)
        )
        nonce = ""
        if self._rules.has_nonce:
            scope = private_scope(scope)
            # 128 bits, new for each response (CSP 3, 7.1).
            nonce = scope[CSP_NONCE_KEY] = os.urandom(16).hex()

        async def send_with_fields(message: Message) -> None:
            if message["type"] in HEADS:
                headers = raw_headers(message)
                merger.step_raw(message["status"], headers, nonce)
                message = with_headers(message, headers)
            await send(message)

        await self._app(scope, receive, send_with_fields)
