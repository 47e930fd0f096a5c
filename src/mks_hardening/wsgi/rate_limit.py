"""Puts a limiter in front of an application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core import hooks
from mks_hardening._core.origin import ORIGIN_KEY, ProxyTrust, client_key, origin_reader, request_origin
from mks_hardening._core.rate_headers import HeaderStyle, rate_limit_headers
from mks_hardening.events import RequestRefused
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._answers import Refusal
from mks_hardening.wsgi._paths import PathRules

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.wsgi_iter import ExcInfo, Headers
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RateLimitMiddleware", "RateLimitRule"]

Key = Callable[[dict[str, Any]], str | None]

_TOO_MANY: Final = Refusal(429, "Too many requests. Wait for the time given in Retry-After.")


def by_client(environ: dict[str, Any]) -> str:
    """The client's address (IPv6: its /64 network), as the trust settings decide it."""
    return client_key(request_origin(environ).client_ip)


class RateLimitRule:
    """Which requests count against which group of limits, and who they are counted for.

    Args:
        group: name of the group at the limiter.
        methods: methods it applies to (``GET`` includes ``HEAD``); ``None`` for all.
        path: a path, or several; a trailing slash means the folder; ``None`` for all. Other spellings of the same
            path (``//login``, ``/x/../login``, ``/login/``) count as well.
        key: takes the WSGI environ and returns whom to count for, or ``None`` where the rule does not apply. The
            default is the client's address; ``environ["mks_hardening.origin"]`` and
            ``environ["mks_hardening.session"]`` are there if outer wrappers have set them.

    Raises:
        ConfigurationError: an empty group, a path without leading slash, a key that is not callable.
    """

    __slots__ = ("_methods", "_paths", "group", "key")

    def __init__(
        self,
        group: str,
        *,
        methods: Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        key: Key = by_client,
    ) -> None:
        if not isinstance(group, str) or not group:
            raise ConfigurationError("group must be the name of a group of limits", parameter="group")
        if not callable(key):
            raise ConfigurationError("key must be callable", parameter="key")
        self.group: str = group
        self.key: Key = key
        self._methods = _methods(methods)
        paths = (path,) if isinstance(path, str) else path
        self._paths = None if paths is None else PathRules(paths, parameter="path")

    def applies(self, method: str, path: str) -> bool:
        """Whether requests of this kind count."""
        return (self._methods is None or method in self._methods) and (
            self._paths is None or self._paths.covers(path)
        )

    def __repr__(self) -> str:
        return f"RateLimitRule({self.group!r})"


class RateLimitMiddleware:
    """Counts each request against every rule that applies, in order, and refuses it at the first limit with 429.

    Answers carry the state of the tightest limit, unless the application has set such fields itself.

    Args:
        app: the WSGI application.
        limiter: for example ``mks_hardening.security.RateLimiter``; what happens when its store is away is its
            own policy.
        rules: the rules, in order.
        trust: which proxies may name the client; not needed inside ``TrustedProxyMiddleware``.
        header_style: ``"x"``, ``"ietf"`` or ``"both"``.

    Raises:
        ConfigurationError: no rule, or something that is not a rule.
    """

    __slots__ = ("_app", "_limiter", "_origin", "_rules", "_style")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        limiter: Limiter,
        rules: Iterable[RateLimitRule],
        trust: ProxyTrust | None = None,
        header_style: HeaderStyle = "both",
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._rules = tuple(rules)
        self._origin = origin_reader(trust)
        self._style: HeaderStyle = header_style
        if not self._rules or not all(isinstance(rule, RateLimitRule) for rule in self._rules):
            raise ConfigurationError(
                "rules must hold at least one RateLimitRule and nothing else", parameter="rules"
            )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        decisions: list[LimitDecision] = []
        for rule in self._rules:
            decision = self._hit(rule, environ)
            if decision is None:
                continue
            if not decision.allowed:
                if hooks.observers:
                    hooks.emit(RequestRefused("rate_limit", rule.group, origin.client_ip))
                return _TOO_MANY.send(
                    environ, start_response, rate_limit_headers(decision, style=self._style)
                )
            decisions.append(decision)
        if not decisions:
            return self._app(environ, start_response)
        return self._app(environ, self._announcing(min(decisions, key=_left), start_response))

    def _hit(self, rule: RateLimitRule, environ: WSGIEnvironment) -> LimitDecision | None:
        if not rule.applies(environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")):
            return None
        key = rule.key(environ)
        return None if key is None else self._limiter.hit(rule.group, key)

    def _announcing(self, decision: LimitDecision, start_response: StartResponse) -> StartResponse:
        state = rate_limit_headers(decision, style=self._style)

        def start(
            status: str, headers: Headers, exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            present = {name.lower() for name, _ in headers}
            added = [field for field in state if field[0].lower() not in present]
            return start_response(status, [*headers, *added], exc_info)

        return start


def _left(decision: LimitDecision) -> int:
    return min(decision.remaining, default=0)


def _methods(methods: Iterable[str] | None) -> frozenset[str] | None:
    if methods is None:
        return None
    if isinstance(methods, str):
        raise ConfigurationError("methods must be a list of methods, not one str", parameter="methods")
    listed = {method.upper() for method in methods}
    return frozenset(listed | {"HEAD"} if "GET" in listed else listed)
