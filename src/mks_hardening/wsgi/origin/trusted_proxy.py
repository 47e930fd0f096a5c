"""The outermost wrapper: decides who is asking, and leaves nothing untrusted for the others to read."""

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
    """Resolves the origin of each request once and makes the environ say so.

    From a trusted peer ``REMOTE_ADDR``, ``wsgi.url_scheme``, ``HTTP_HOST``, ``SERVER_NAME``, ``SERVER_PORT`` and
    ``SCRIPT_NAME`` become what the client used, and the headers that were read hold that decision alone. From
    anybody else such headers are removed, and from everybody those that nobody reads (see ``ProxyTrust``). The
    decision itself is at ``environ["mks_hardening.origin"]``.

    Args:
        app: the WSGI application.
        trust: which peers are believed.

    Source: ASVS 5.0 V4.1.3, V15.3.4.
    """

    __slots__ = ("_app", "_trust")

    def __init__(self, app: WSGIApplication, *, trust: ProxyTrust) -> None:
        self._app = wsgi_application(app)
        self._trust = instance(trust, ProxyTrust, parameter="trust")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        if ORIGIN_KEY not in environ:
            self._trust.admit(environ)
        return self._app(environ, start_response)
