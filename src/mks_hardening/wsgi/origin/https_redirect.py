"""HTTPS redirects and host validation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.https.https_rules import BAD_HOST, HTTPSRules
from mks_hardening._edge.refusal_response import RefusalResponse, Refuser
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["HTTPSRedirectMiddleware"]


class HTTPSRedirectMiddleware:
    """Middleware that redirects plain HTTP to HTTPS, and refuses hosts that are not allowed with 400.

    Hosts are checked over HTTPS as well. GET and HEAD get 301; other methods get 308, which keeps method and body
    (302 and 307 with ``permanent=False``). The redirect target is built from ``allowed_hosts``, never from an
    unchecked ``Host``, and does not copy the port of the plain connection.

    ``exempt_paths``, ``probe_paths`` and ``api_paths`` are compared with the path below the mount point. An entry
    matches exactly, or everything below it if it ends in a slash. A path with empty or dot segments or backslashes
    is never exempt; for ``api_paths`` it is normalized first.

    Args:
        app: the WSGI application.
        allowed_hosts: hosts that the application serves; ``.example.com`` matches it and all its subdomains.
        force_https: ``False`` only validates the host (and redirects to ``canonical_host``).
        trust: proxies that may report scheme and host, by default none; not needed inside
            ``TrustedProxyMiddleware``.
        https_port: port of the redirect target.
        permanent: whether clients may cache the redirect.
        canonical_host: one of the allowed hosts, to which requests for the others are redirected.
        exempt_paths: served over plain HTTP.
        probe_paths: served over plain HTTP and for any well-formed host, or none: probes address a pod by IP
            address.
        api_paths: refused with 403 over plain HTTP, so that a client with a wrong URL is noticed (ASVS 5.0 V4.1.2).
        on_refusal: takes the environ and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: no host is given or one is malformed; ``canonical_host`` is not an allowed host; a port
            is out of range; a path does not begin with a slash; an exemption matches every path.

    Source: RFC 9110 (15.4), RFC 3986; ASVS 5.0 V3.7.2, V4.1.2, V12.2.1.
    """

    __slots__ = ("_app", "_origin", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
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
        self._app = wsgi_application(app)
        chosen = ProxyTrust() if trust is None else instance(trust, ProxyTrust, parameter="trust")
        self._origin = chosen.admit
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

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        # Fast path for nearly every request: neither method nor path is examined.
        if self._rules.bases[origin] is None:
            return self._app(environ, start_response)
        get = environ.get
        response = self._rules.responses[
            origin,
            environ["REQUEST_METHOD"],
            get("SCRIPT_NAME", ""),
            get("PATH_INFO", ""),
            get("QUERY_STRING", ""),
            "HTTP_HOST" in environ,
            # RAW_URI is set by gunicorn; REQUEST_URI by waitress, uWSGI and mod_wsgi.
            get("RAW_URI") or get("REQUEST_URI") or "",
        ]
        if response is None:
            return self._app(environ, start_response)
        if isinstance(response, RefusalResponse):
            bad_host = response.name == BAD_HOST
            response = self._refuser.refuse(
                environ,
                response,
                accept=get("HTTP_ACCEPT", ""),
                seen=get("HTTP_HOST") or "no host" if bad_host else f"http to {get('PATH_INFO', '')}",
                client_ip=origin.client_ip,
            )
        return send_response(environ, start_response, response)
