"""Middleware that refuses requests of blocked clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import admit_by
from mks_hardening._core.web.asgi_scope import header, is_request, path_below_mount
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.client_rules.ban_list import BanList
from mks_hardening._edge.client_rules.client_check import ClientCheck
from mks_hardening._edge.client_rules.client_rules import ClientRules
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import HEADS, send_response

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["ClientRulesMiddleware"]


class ClientRulesMiddleware:
    """Middleware that responds with 403 to clients on a deny list and to clients that are banned for a while.

    It looks at addresses, statuses and events only. Matching requests against signatures of attacks is the work of
    a web application firewall in front of the application.

    Args:
        app: the ASGI application.
        rules: lists of networks.
        bans: temporary bans; it counts the responses that its rules name.
        pass_paths: paths that are served nevertheless and do not count; a trailing slash includes everything below.
        exempt: takes the scope and returns whether a banned client is served nevertheless, for example because it
            is signed in; requires that ``SessionTimeoutMiddleware`` is outside of this middleware. A client for
            which it raises an error stays banned.
        dry_run: whether offences lead to bans, which are logged and listed, but nothing is refused.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        on_refusal: takes the scope and the ``Refusal`` (``denied``, ``banned``) and may return a
            ``CustomResponse``.

    Raises:
        ConfigurationError: neither ``rules`` nor ``bans`` is given, or an option has the wrong type.
    """

    __slots__ = ("_admit", "_app", "_check", "_refuser")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        rules: ClientRules | None = None,
        bans: BanList | None = None,
        pass_paths: Iterable[str] = (LIVEZ, READYZ),
        exempt: Callable[[dict[str, Any]], bool] | None = None,
        dry_run: bool = False,
        trust: ProxyTrust | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._admit = admit_by(trust)
        self._refuser = Refuser("client_rules", on_refusal)
        self._check = ClientCheck(
            rules=rules, bans=bans, pass_paths=pass_paths, exempt=exempt, dry_run=dry_run
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if not is_request(scope):
            await self._app(scope, receive, send)
            return
        inner = private_scope(scope if ORIGIN_KEY in scope else self._admit(scope))
        path, client_ip = path_below_mount(inner), inner[ORIGIN_KEY].client_ip
        refusal = self._check.refusal(inner, path, client_ip)
        if refusal is not None:
            accept = header(inner, b"accept") or ""
            response = self._refuser.refuse(
                inner, refusal, accept=accept, seen=client_ip, client_ip=client_ip
            )
            await send_response(inner, send, response)
            return
        observe = self._check.observer(path, client_ip)
        if observe is None:
            await self._app(inner, receive, send)
            return

        async def watched_send(message: Message) -> None:
            if message["type"] in HEADS:
                observe(message["status"])
            await send(message)

        await self._app(inner, receive, watched_send)
