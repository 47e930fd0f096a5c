"""The outermost middleware: determines the origin of a request and removes untrusted forwarding headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.wsgi_stack import wsgi_application

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TrustedProxyMiddleware"]


class TrustedProxyMiddleware:
    """Middleware that resolves the origin of each request once and updates the environ accordingly.

    For requests from a trusted peer, ``REMOTE_ADDR``, ``wsgi.url_scheme``, ``HTTP_HOST``, ``SERVER_NAME``,
    ``SERVER_PORT`` and ``SCRIPT_NAME`` are set to what the client used, and the forwarding headers that were read
    are rewritten to match. For requests from other peers these headers are removed. Forwarding headers that are
    never read are removed from all requests (see ``ProxyTrust``). The decision is stored in
    ``environ["mks_hardening.origin"]``.

    Args:
        app: the WSGI application.
        trust: the trusted peers.

    Source: ASVS 5.0 V4.1.3, V15.3.4.
    """

    __slots__ = ("_app", "_trust")

    def __init__(self, app: WSGIApplication, *, trust: ProxyTrust) -> None:
        self._app = wsgi_application(app)
        self._trust = instance(trust, ProxyTrust, parameter="trust")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        if ORIGIN_KEY not in environ:
            self._trust.admit(environ)
        return self._app(environ, start_response)
