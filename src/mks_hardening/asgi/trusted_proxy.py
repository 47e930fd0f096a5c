"""The decision about the origin of a request, made once for all middleware inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import ScopeTrust
from mks_hardening._core.web.asgi_scope import REQUESTS
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening.asgi._application import asgi_application

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Receive, Scope, Send

__all__ = ["TrustedProxyMiddleware"]


class TrustedProxyMiddleware:
    """Middleware that determines the origin of each request and removes every other forwarding header.

    The application, and all middleware inside, see the client's address, scheme, host and prefix in the usual keys
    of the scope, for HTTP and for WebSockets.

    Args:
        app: the ASGI application.
        trust: the trusted peers.

    Raises:
        ConfigurationError: ``app`` is not an ASGI application, or ``trust`` not a ``ProxyTrust``.

    Source: ASVS 5.0 V4.1.3, V15.3.4.
    """

    __slots__ = ("_admit", "_app")

    def __init__(self, app: ASGIApplication, *, trust: ProxyTrust) -> None:
        self._app = asgi_application(app)
        self._admit = ScopeTrust(instance(trust, ProxyTrust, parameter="trust")).admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] in REQUESTS and ORIGIN_KEY not in scope:
            scope = self._admit(scope)
        await self._app(scope, receive, send)
