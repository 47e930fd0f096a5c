"""Middleware that hardens the cookies of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import instance
from mks_hardening._core.web.asgi_scope import REQUESTS
from mks_hardening._edge.cookies.cookie_policy import CookiePolicy
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import HEADS, decoded, encoded, raw_headers, with_headers

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send

__all__ = ["CookiePolicyMiddleware"]

# Accepted WebSockets may set cookies too.
_WITH_COOKIES: Final = HEADS | {"websocket.accept"}


class CookiePolicyMiddleware:
    """Middleware that adds ``Secure``, ``HttpOnly`` and ``SameSite`` to the cookies that the application sets.

    See ``CookiePolicy`` for what is added and what is left alone. Use it inside the session and the CSRF
    middleware, around the application.

    Args:
        app: the ASGI application.
        policy: the policy.

    Raises:
        ConfigurationError: ``policy`` is not a ``CookiePolicy``.

    Source: RFC 6265bis (4.1.2, 4.1.3); ASVS 5.0 V3.3.1 to V3.3.4.
    """

    __slots__ = ("_app", "_policy")

    def __init__(self, app: ASGIApplication, *, policy: CookiePolicy) -> None:
        self._app = asgi_application(app)
        self._policy = instance(policy, CookiePolicy, parameter="policy")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in REQUESTS:
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] in _WITH_COOKIES and message.get("headers"):
                headers = raw_headers(message)
                if any(len(name) == 10 and name.lower() == b"set-cookie" for name, _ in headers):
                    fields = decoded(headers)
                    self._policy.apply(fields)
                    headers = encoded(fields)
                message = with_headers(message, headers)
            await send(message)

        await self._app(scope, receive, send_hardened)
