"""Rate limits in front of an application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from mks_hardening._core.checks import choice, offers
from mks_hardening._core.origin.proxy_trust import ProxyTrust, origin_reader
from mks_hardening._core.request_hits import hits_of_request
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import exemptions
from mks_hardening._core.web.rate_headers import (
    HeaderStyle,
    exhausted_limits,
    missing_fields,
    rate_limit_headers,
)
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import has_inside, wsgi_application
from mks_hardening._edge.rate_limits.rate_limit_rule import (
    RateLimitRule,
    checked_rules,
    limiter_refusal,
    rate_limit_refusal,
    tightest_decision,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.wsgi._response_costs import call_with_costs
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RateLimitMiddleware"]


class RateLimitMiddleware:
    """Middleware that counts requests against all rules that apply, in order, and refuses them with 429 at a limit.

    A refused request consumes no quota: the hits of all rules, and of the rate limits of views inside, are given
    back (if the limiter has ``reserve``).

    Responses carry the rate-limit headers of the limit with the fewest requests left, unless the application has
    set such headers itself. A refusal is a problem document or plain text, in Japanese or English, as the client
    prefers.

    Args:
        app: the WSGI application.
        limiter: for example ``mks_hardening.security.RateLimiter``; the limiter decides what happens while its
            store is unavailable. If it raises an error, the request is refused with 503.
        rules: the rules, in order.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        header_style: ``"x"``, ``"ietf"`` or ``"both"``.
        exempt_paths: paths that are not counted; a trailing slash includes everything below.
        on_refusal: takes the environ and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: no rule is given, or an item is not a rule; the limiter does not have a group of a rule,
            or has no ``reserve`` for a rule with ``final_cost``; a ``GroupChoice`` is asynchronous; a rule counts
            by user outside the session middleware; a rule counts by an unverified header and no other rule counts
            the same requests by a key that the client cannot choose.
    """

    __slots__ = ("_app", "_exempt", "_has_final_costs", "_limiter", "_origin", "_refuser", "_rules", "_style")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        limiter: Limiter,
        rules: Iterable[RateLimitRule],
        trust: ProxyTrust | None = None,
        header_style: HeaderStyle = "both",
        exempt_paths: Iterable[str] = (),
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._limiter = offers(limiter, "hit", parameter="limiter", kind="a Limiter")
        self._origin = origin_reader(trust)
        self._style: HeaderStyle = choice(header_style, get_args(HeaderStyle), parameter="header_style")
        self._exempt = exemptions(exempt_paths, parameter="exempt_paths")
        self._refuser = Refuser("rate_limit", on_refusal)
        self._rules = checked_rules(
            rules, limiter, has_session_inside=has_inside(app, "SessionTimeoutMiddleware"), is_sync=True
        )
        self._has_final_costs = any(rule.has_final_cost for rule in self._rules)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        path = environ.get("PATH_INFO", "")
        if self._exempt.match(path):
            return self._app(environ, start_response)
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        decisions: list[LimitDecision] = []
        get = environ.get
        for rule in self._rules:
            key = rule.key_of(environ, environ["REQUEST_METHOD"], path)
            if key is None:
                continue
            group, hits = rule.group, hits_of_request(environ)
            try:
                if rule.is_plain:
                    decision = hits.hit(self._limiter, group, key)
                else:
                    if rule.choice is not None:
                        group = rule.choice.choose_group(environ)
                    final_cost = rule.final_cost_of(environ)
                    decision = hits.hit(self._limiter, group, key, cost=rule.cost, final_cost=final_cost)
            except BackendUnavailableError as error:
                response = self._refuser.refuse(
                    environ,
                    limiter_refusal(error),
                    accept=get("HTTP_ACCEPT", ""),
                    seen=str(error),
                    client_ip=origin.client_ip,
                )
                return send_response(environ, start_response, response)
            if not decision.allowed:
                response = self._refuser.refuse(
                    environ,
                    rate_limit_refusal(decision, get("HTTP_ACCEPT_LANGUAGE", "")),
                    accept=get("HTTP_ACCEPT", ""),
                    name=group,
                    seen=exhausted_limits(decision),
                    client_ip=origin.client_ip,
                    headers=rate_limit_headers(decision, style=self._style),
                )
                return send_response(environ, start_response, response)
            decisions.append(decision)
        if not decisions:
            return self._app(environ, start_response)
        state = rate_limit_headers(tightest_decision(decisions), style=self._style)

        def announce(status: str, headers: Headers) -> str:
            if not status.startswith("429"):  # an inner limit has refused the request and set its own headers
                headers += missing_fields(state, headers)
            return status

        # Rate-limit headers set by others, such as a gateway behind the application, are kept.
        start_response = with_step(start_response, announce)
        if self._has_final_costs:
            return call_with_costs(self._app, environ, start_response)
        return self._app(environ, start_response)
