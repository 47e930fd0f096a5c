"""Middleware for maintenance mode."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import admit_by
from mks_hardening._core.web.asgi_scope import header, is_request, path_below_mount
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._core.web.problem_details import prefers_text
from mks_hardening._edge.maintenance.maintenance_rules import MaintenanceRules
from mks_hardening._edge.maintenance.maintenance_switch import MaintenanceSwitch
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import send_response

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["MaintenanceMiddleware"]


class MaintenanceMiddleware:
    """Middleware that responds with 503 and ``Retry-After`` to every request while a maintenance switch is on.

    Health probes pass, so that a load balancer keeps the instance, and so do the networks of the operators. Nothing
    else is read or looked up, so that it works while databases are down.

    Args:
        app: the ASGI application.
        switch: for example ``MaintenanceSwitch("/run/app/maintenance")``; the command ``mks-hardening maintenance``
            turns it on and off.
        pass_paths: paths that are served nevertheless; a trailing slash includes everything below.
        pass_networks: addresses and networks of clients that are served nevertheless.
        retry_after: seconds after which clients should try again.
        page: HTML for browsers; without it they get one sentence as text.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        on_refusal: takes the scope and the ``Refusal`` (``maintenance``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: a path or network is malformed, or ``switch`` is not a ``MaintenanceSwitch``.

    Source: RFC 9110 (15.6.4).
    """

    __slots__ = ("_admit", "_app", "_refuser", "_rules")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        switch: MaintenanceSwitch,
        pass_paths: Iterable[str] = (LIVEZ, READYZ),
        pass_networks: Iterable[str] = (),
        retry_after: float | timedelta = 300,
        page: str | None = None,
        trust: ProxyTrust | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._admit = admit_by(trust)
        self._refuser = Refuser("maintenance", on_refusal)
        self._rules = MaintenanceRules(
            switch=switch,
            pass_paths=pass_paths,
            pass_networks=pass_networks,
            retry_after=retry_after,
            page=page,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        rules = self._rules
        if not is_request(scope) or not rules.switch.is_on():
            await self._app(scope, receive, send)
            return
        if ORIGIN_KEY not in scope:
            scope = self._admit(scope)
        client_ip: str = scope[ORIGIN_KEY].client_ip
        if not rules.refuses(path_below_mount(scope), client_ip):
            await self._app(scope, receive, send)
            return
        accept = header(scope, b"accept") or ""
        response = self._refuser.refuse(
            private_scope(scope),
            rules.refusal,
            accept=accept,
            seen=str(rules.switch.path),
            client_ip=client_ip,
            page=rules.page if prefers_text(accept) else None,
        )
        await send_response(scope, send, response)
