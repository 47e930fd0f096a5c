"""Middleware that limits how many requests are handled at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from mks_hardening._core.checks import boolean, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.origin.proxy_trust import ProxyTrust
from mks_hardening._core.origin.scope_trust import admit_by
from mks_hardening._core.web.asgi_scope import REQUESTS, header, method_of, path_below_mount
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.concurrency.concurrency_rule import (
    NO_SLOT,
    ConcurrencyRule,
    HeldSlots,
    SlotLimiter,
    checked_slot_rules,
    retry_after,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import send_response
from mks_hardening.asgi._waiting_requests import WaitingClient, WaitingRequests

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Receive, Scope, Send
    from mks_hardening._edge.concurrency.concurrency_rule import RequestSlot
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["ConcurrencyMiddleware"]


class ConcurrencyMiddleware:
    """Middleware that refuses requests with 503 while too many others are being handled.

    Each request holds a slot of every rule that applies until the application has returned: background work after
    the response counts, and so do streams. Under overload, the requests that are accepted stay fast, and the others
    are told to try again (``Retry-After``). A few may wait for a slot, in order; those that wait for the slots of
    one key, such as a client address, take no place of others. A request whose client leaves while it waits takes
    no slot, unless the client is still sending the body.

    Args:
        app: the ASGI application.
        limiter: a ``mks_hardening.security.ConcurrencyLimiter``, in memory for a limit of each process, or in Redis
            for one of all processes.
        rules: the rules, in order: those by client first, so that a refused request takes no slot of all.
        wait: maximum seconds that a request waits for its slots; 0 refuses it at once.
        most_waiting: maximum number of requests of this process that wait for the slots of one limit and key;
            further ones are refused at once.
        count_sockets: whether WebSockets hold slots while they are open.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        on_refusal: takes the scope and the ``Refusal`` (``concurrency``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: no rule is given, an item is not a rule, the limiter does not have a limit, or a number
            is out of range.

    Source: RFC 9110 (15.6.4); ASVS 5.0 V15.1.3; CWE-770.
    """

    __slots__ = ("_admit", "_app", "_kinds", "_limiter", "_refuser", "_rules", "_waiting")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        limiter: SlotLimiter,
        rules: Iterable[ConcurrencyRule],
        wait: float | timedelta = 0.5,
        most_waiting: int = 20,
        count_sockets: bool = False,
        trust: ProxyTrust | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._limiter = limiter
        self._rules = checked_slot_rules(rules, limiter)
        longest = seconds(wait, parameter="wait")
        most = whole_number(most_waiting, parameter="most_waiting", minimum=0)
        self._waiting = WaitingRequests(most=most if longest else 0, wait=longest)
        self._kinds = REQUESTS if boolean(count_sockets, parameter="count_sockets") else ("http",)
        self._admit = admit_by(trust)
        self._refuser = Refuser("concurrency", on_refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in self._kinds:
            await self._app(scope, receive, send)
            return
        inner = private_scope(scope if ORIGIN_KEY in scope else self._admit(scope))
        method, path = method_of(inner), path_below_mount(inner)
        held, client = HeldSlots(inner, self._limiter), WaitingClient(receive)
        try:
            for rule in self._rules:
                key = rule.key_of(inner, method, path)
                if key is None:
                    continue
                place = (rule.limit, key)
                if held.has(place):
                    continue
                slot = await self._waiting.acquire(place, partial(self._limiter.aacquire, *place), client)
                if slot:
                    held.add(place, slot)
                if client.has_left:
                    return  # nobody waits for a response
                if not slot:
                    await self._release(held)
                    await self._refuse(inner, send, rule, slot)
                    return
            await self._app(inner, client.admit(), send)
        finally:
            client.close()
            await self._release(held)

    async def _release(self, held: HeldSlots) -> None:
        places = held.places
        try:
            await held.arelease()
        finally:
            # The last one first: a request that waits for it makes room in the line for others.
            for place in reversed(places):
                self._waiting.wake(place)

    async def _refuse(
        self, scope: dict[str, Any], send: Send, rule: ConcurrencyRule, slot: RequestSlot | None
    ) -> None:
        response = self._refuser.refuse(
            scope,
            NO_SLOT,
            accept=header(scope, b"accept") or "",
            name=rule.limit,
            seen=f"no slot of {rule.limit}",
            client_ip=scope[ORIGIN_KEY].client_ip,
            headers=[retry_after(slot)],
        )
        await send_response(scope, send, response)
