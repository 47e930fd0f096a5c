"""Middleware that refuses requests of blocked clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mks_hardening._core.origin.proxy_trust import ProxyTrust, origin_reader
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.client_rules.ban_list import BanList
from mks_hardening._edge.client_rules.client_check import ClientCheck
from mks_hardening._edge.client_rules.client_rules import ClientRules
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["ClientRulesMiddleware"]


class ClientRulesMiddleware:
    """Middleware that responds with 403 to clients on a deny list and to clients that are banned for a while.

    It looks at addresses, statuses and events only. Matching requests against signatures of attacks is the work of
    a web application firewall in front of the application.

    Args:
        app: the WSGI application.
        rules: lists of networks.
        bans: temporary bans; it counts the responses that its rules name.
        pass_paths: paths that are served nevertheless and do not count; a trailing slash includes everything below.
        exempt: takes the environ and returns whether a banned client is served nevertheless, for example because it
            is signed in; requires that ``SessionTimeoutMiddleware`` is outside of this middleware. A client for
            which it raises an error stays banned.
        dry_run: whether offences lead to bans, which are logged and listed, but nothing is refused.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        on_refusal: takes the environ and the ``Refusal`` (``denied``, ``banned``) and may return a
            ``CustomResponse``.

    Raises:
        ConfigurationError: neither ``rules`` nor ``bans`` is given, or an option has the wrong type.
    """

    __slots__ = ("_app", "_check", "_origin", "_refuser")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        rules: ClientRules | None = None,
        bans: BanList | None = None,
        pass_paths: Iterable[str] = (LIVEZ, READYZ),
        exempt: Callable[[dict[str, Any]], bool] | None = None,
        dry_run: bool = False,
        trust: ProxyTrust | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._origin = origin_reader(trust)
        self._refuser = Refuser("client_rules", on_refusal)
        self._check = ClientCheck(
            rules=rules, bans=bans, pass_paths=pass_paths, exempt=exempt, dry_run=dry_run
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        path = environ.get("PATH_INFO", "")
        refusal = self._check.refusal(environ, path, origin.client_ip)
        if refusal is not None:
            response = self._refuser.refuse(
                environ,
                refusal,
                accept=environ.get("HTTP_ACCEPT", ""),
                seen=origin.client_ip,
                client_ip=origin.client_ip,
            )
            return send_response(environ, start_response, response)
        observe = self._check.observer(path, origin.client_ip)
        if observe is None:
            return self._app(environ, start_response)

        def watch(status: str, _headers: Headers) -> str:
            observe(int(status[:3]))
            return status

        return self._app(environ, with_step(start_response, watch))
