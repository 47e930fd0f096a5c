"""Middleware for maintenance mode."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.origin.proxy_trust import ProxyTrust, origin_reader
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.problem_details import prefers_text
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.maintenance.maintenance_rules import MaintenanceRules
from mks_hardening._edge.maintenance.maintenance_switch import MaintenanceSwitch
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["MaintenanceMiddleware"]


class MaintenanceMiddleware:
    """Middleware that responds with 503 and ``Retry-After`` to every request while a maintenance switch is on.

    Health probes pass, so that a load balancer keeps the instance, and so do the networks of the operators. Nothing
    else is read or looked up, so that it works while databases are down.

    Args:
        app: the WSGI application.
        switch: for example ``MaintenanceSwitch("/run/app/maintenance")``; the command ``mks-hardening maintenance``
            turns it on and off.
        pass_paths: paths that are served nevertheless; a trailing slash includes everything below.
        pass_networks: addresses and networks of clients that are served nevertheless.
        retry_after: seconds after which clients should try again.
        page: HTML for browsers; without it they get one sentence as text.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        on_refusal: takes the environ and the ``Refusal`` (``maintenance``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: a path or network is malformed, or ``switch`` is not a ``MaintenanceSwitch``.

    Source: RFC 9110 (15.6.4).
    """

    __slots__ = ("_app", "_origin", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        switch: MaintenanceSwitch,
        pass_paths: Iterable[str] = (LIVEZ, READYZ),
        pass_networks: Iterable[str] = (),
        retry_after: float | timedelta = 300,
        page: str | None = None,
        trust: ProxyTrust | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._origin = origin_reader(trust)
        self._refuser = Refuser("maintenance", on_refusal)
        self._rules = MaintenanceRules(
            switch=switch,
            pass_paths=pass_paths,
            pass_networks=pass_networks,
            retry_after=retry_after,
            page=page,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        rules = self._rules
        if not rules.switch.is_on():
            return self._app(environ, start_response)
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        if not rules.refuses(environ.get("PATH_INFO", ""), origin.client_ip):
            return self._app(environ, start_response)
        accept = environ.get("HTTP_ACCEPT", "")
        response = self._refuser.refuse(
            environ,
            rules.refusal,
            accept=accept,
            seen=str(rules.switch.path),
            client_ip=origin.client_ip,
            page=rules.page if prefers_text(accept) else None,
        )
        return send_response(environ, start_response, response)
