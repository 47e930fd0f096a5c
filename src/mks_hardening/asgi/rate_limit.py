"""Rate limits in front of an application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from mks_hardening._core.checks import choice, offers
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import admit_by
from mks_hardening._core.request_hits import hits_of_request
from mks_hardening._core.web.asgi_scope import REQUESTS, header, method_of, path_below_mount
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import exemptions
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._core.web.rate_headers import (
    HeaderStyle,
    exhausted_limits,
    missing_fields,
    rate_limit_headers,
)
from mks_hardening._core.web.wsgi_stack import has_inside
from mks_hardening._edge.rate_limits.rate_limit_rule import (
    RateLimitRule,
    checked_rules,
    limiter_refusal,
    rate_limit_refusal,
    tightest_decision,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import HEADS, encoded, raw_headers, send_response, with_headers
from mks_hardening.asgi._response_costs import ResponseEnd
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RateLimitMiddleware"]


class RateLimitMiddleware:
    """Middleware that counts requests against all rules that apply, in order, and refuses them with 429 at a limit.

    A WebSocket counts as one request with the method GET when it is opened. A refused request consumes no quota:
    the hits of all rules, and of the rate limits of views inside, are given back (if the limiter has ``areserve``).
    A limiter without asyncio methods is called in a worker thread.

    Responses carry the rate-limit headers of the limit with the fewest requests left, unless the application has
    set such headers itself. A refusal is a problem document or plain text, in Japanese or English, as the client
    prefers.

    Args:
        app: the ASGI application.
        limiter: for example ``mks_hardening.security.RateLimiter``; the limiter decides what happens while its
            store is unavailable. If it raises an error, the request is refused with 503.
        rules: the rules, in order; their keys get the scope.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        header_style: ``"x"``, ``"ietf"`` or ``"both"``.
        exempt_paths: paths that are not counted; a trailing slash includes everything below.
        on_refusal: takes the scope and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: no rule is given, or an item is not a rule; the limiter does not have a group of a rule,
            or has no ``reserve`` for a rule with ``final_cost``; a rule counts by user outside the session
            middleware; a rule counts by an unverified header and no other rule counts the same requests by a key
            that the client cannot choose.
    """

    __slots__ = ("_admit", "_app", "_exempt", "_has_final_costs", "_limiter", "_refuser", "_rules", "_style")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        limiter: Limiter,
        rules: Iterable[RateLimitRule],
        trust: ProxyTrust | None = None,
        header_style: HeaderStyle = "both",
        exempt_paths: Iterable[str] = (),
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._limiter = offers(limiter, "hit", parameter="limiter", kind="a Limiter")
        self._admit = admit_by(trust)
        self._style: HeaderStyle = choice(header_style, get_args(HeaderStyle), parameter="header_style")
        self._exempt = exemptions(exempt_paths, parameter="exempt_paths")
        self._refuser = Refuser("rate_limit", on_refusal)
        self._rules = checked_rules(
            rules, limiter, has_session_inside=has_inside(app, "SessionTimeoutMiddleware"), is_sync=False
        )
        self._has_final_costs = any(rule.has_final_cost for rule in self._rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in REQUESTS or self._exempt.match(path := path_below_mount(scope)):
            await self._app(scope, receive, send)
            return
        inner = private_scope(scope if ORIGIN_KEY in scope else self._admit(scope))
        method = method_of(inner)
        decisions: list[LimitDecision] = []
        for rule in self._rules:
            key = rule.key_of(inner, method, path)
            if key is None:
                continue
            group, hits = rule.group, hits_of_request(inner)
            try:
                if rule.is_plain:
                    decision = await hits.ahit(self._limiter, group, key)
                else:
                    if rule.choice is not None:
                        group = await rule.choice.achoose_group(inner)
                    final_cost = rule.final_cost_of(inner)
                    decision = await hits.ahit(
                        self._limiter, group, key, cost=rule.cost, final_cost=final_cost
                    )
            except BackendUnavailableError as error:
                response = self._refuser.refuse(
                    inner,
                    limiter_refusal(error),
                    accept=header(inner, b"accept") or "",
                    seen=str(error),
                    client_ip=inner[ORIGIN_KEY].client_ip,
                )
                await send_response(inner, send, response)
                return
            if not decision.allowed:
                response = self._refuser.refuse(
                    inner,
                    rate_limit_refusal(decision, header(inner, b"accept-language") or ""),
                    accept=header(inner, b"accept") or "",
                    name=group,
                    seen=exhausted_limits(decision),
                    client_ip=inner[ORIGIN_KEY].client_ip,
                    headers=rate_limit_headers(decision, style=self._style),
                )
                await send_response(inner, send, response)
                return
            decisions.append(decision)
        if not decisions:
            await self._app(inner, receive, send)
            return
        state = encoded(rate_limit_headers(tightest_decision(decisions), style=self._style))

        async def send_with_state(message: Message) -> None:
            # An inner limit that has refused the request set its own headers.
            if message["type"] in HEADS and message["status"] != 429:
                headers = raw_headers(message)
                message = with_headers(message, headers + missing_fields(state, headers))
            await send(message)

        if not self._has_final_costs:
            await self._app(inner, receive, send_with_state)
            return

        end = ResponseEnd(inner)

        async def send_with_costs(message: Message) -> None:
            await end.before(message)
            await send_with_state(message)

        try:
            await self._app(inner, receive, send_with_costs)
        finally:
            await end.finalize(complete=False)
