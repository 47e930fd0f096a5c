"""HTTPS redirects and allowed hosts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import admit_by
from mks_hardening._core.web.asgi_scope import (
    REQUESTS,
    first_header,
    header,
    method_of,
    mount_of,
    path_below_mount,
    query_of,
    raw_target,
)
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.https.https_rules import BAD_HOST, PLAIN_HTTP, HTTPSRules
from mks_hardening._edge.refusal_response import RefusalResponse, Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import send_response

if TYPE_CHECKING:
    from mks_hardening._core.origin.request_origin import RequestOrigin
    from mks_hardening._core.web.asgi_types import ASGIApplication, Receive, Scope, Send
    from mks_hardening._edge.refusal_response import FixedResponse
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["HTTPSRedirectMiddleware"]

_GET: Final = "GET"


class HTTPSRedirectMiddleware:
    """Middleware that redirects plain HTTP to HTTPS, and refuses hosts that are not allowed with 400.

    Hosts are checked over HTTPS as well. GET and HEAD get 301; other methods get 308, which keeps method and body
    (302 and 307 with ``permanent=False``). The redirect target is built from ``allowed_hosts``, never from an
    unchecked ``Host``, and does not copy the port of the plain connection. A WebSocket over plain HTTP is refused
    with 403, as browsers do not follow redirects of WebSockets.

    Paths are compared below ``root_path``; see ``mks_hardening.wsgi.HTTPSRedirectMiddleware``, which has the same
    rules.

    Args:
        app: the ASGI application.
        allowed_hosts: hosts that the application serves; ``.example.com`` matches it and all its subdomains.
        force_https: ``False`` only validates the host (and redirects to ``canonical_host``).
        trust: proxies that may report scheme and host, by default none; not needed inside
            ``TrustedProxyMiddleware``.
        https_port: port of the redirect target.
        permanent: whether clients may cache the redirect.
        canonical_host: one of the allowed hosts, to which requests for the others are redirected.
        exempt_paths: served over plain HTTP.
        probe_paths: served over plain HTTP and for any well-formed host, or none.
        api_paths: refused with 403 over plain HTTP, so that a client with a wrong URL is noticed (ASVS 5.0 V4.1.2).
        on_refusal: takes the scope and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: no host is given or one is malformed; ``canonical_host`` is not an allowed host; a port
            is out of range; a path does not begin with a slash; an exemption matches every path.

    Source: RFC 9110 (15.4), RFC 3986; ASVS 5.0 V3.7.2, V4.1.2, V12.2.1.
    """

    __slots__ = ("_admit", "_app", "_bases", "_refuser", "_rules")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        allowed_hosts: Iterable[str],
        force_https: bool = True,
        trust: ProxyTrust | None = None,
        https_port: int = 443,
        permanent: bool = True,
        canonical_host: str | None = None,
        exempt_paths: Iterable[str] = ("/.well-known/acme-challenge/",),
        probe_paths: Iterable[str] = (LIVEZ, READYZ),
        api_paths: Iterable[str] = (),
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._admit = admit_by(ProxyTrust() if trust is None else trust)
        self._refuser = Refuser("https", on_refusal)
        self._rules = HTTPSRules(
            allowed_hosts=allowed_hosts,
            force_https=force_https,
            https_port=https_port,
            permanent=permanent,
            canonical_host=canonical_host,
            exempt_paths=exempt_paths,
            probe_paths=probe_paths,
            api_paths=api_paths,
        )
        self._bases = self._rules.bases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] in REQUESTS:
            if ORIGIN_KEY not in scope:
                scope = self._admit(scope)
            origin: RequestOrigin = scope[ORIGIN_KEY]
            # Fast path for nearly every request: neither method nor path is examined.
            if self._bases[origin] is not None:
                response = self._response(scope, origin)
                if response is not None:
                    await send_response(scope, send, response)
                    return
        await self._app(scope, receive, send)

    def _response(self, scope: Scope, origin: RequestOrigin) -> FixedResponse | None:
        path, host = path_below_mount(scope), first_header(scope, b"host")
        response = self._rules.responses[
            origin,
            method_of(scope),
            mount_of(scope),
            path,
            query_of(scope),
            host is not None,
            raw_target(scope),
        ]
        if (
            response is not None
            and scope["type"] == "websocket"
            and not isinstance(response, RefusalResponse)
        ):
            if origin.scheme == "https":  # another allowed host than the canonical one
                return None
            response = PLAIN_HTTP
        if not isinstance(response, RefusalResponse):
            return response
        return self._refuser.refuse(
            private_scope(scope),
            response,
            accept=header(scope, b"accept") or "",
            seen=host or "no host" if response.name == BAD_HOST else f"http to {path}",
            client_ip=origin.client_ip,
        )
