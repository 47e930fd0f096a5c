"""Rate limits in front of an application."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Final, get_args

from mks_hardening._core.checks import choice, instances, offers, strings
from mks_hardening._core.origin.proxy_trust import ProxyTrust, origin_reader
from mks_hardening._core.request_hits import hits_of_request
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.paths import PathRules
from mks_hardening._core.web.rate_headers import (
    HeaderStyle,
    exhausted_limits,
    missing_fields,
    rate_limit_headers,
)
from mks_hardening._core.web.rate_problem import Language, language_of, rate_limit_problem
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wrappers_inside, wsgi_application
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._refusal_response import RefusalResponse, Refuser
from mks_hardening.wsgi.rate_limit_keys import LimitKey, counts_by_header, counts_by_user, limit_by_address

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RateLimitMiddleware", "RateLimitRule"]

_LONGEST_KEY: Final = 256


class RateLimitRule:
    """Selection of requests that count against a group of limits, and the key they are counted by.

    Args:
        group: name of a group of limits in the limiter.
        limiter: if given, an unknown group is reported here instead of when the middleware is built.
        methods: methods the rule applies to (``GET`` includes ``HEAD``); ``None`` for all.
        path: one path or several; a trailing slash includes everything below; ``None`` for all paths. Other
            spellings of the same path (``//login``, ``/x/../login``, ``/login/``) match as well.
        key: takes the WSGI environ and returns the key to count by, or ``None`` if the rule does not apply. A key
            that is empty or longer than 256 characters is replaced by its digest. The default is the client
            address; see ``limit_by_user``, ``limit_by_header`` and ``limit_by_all`` for others.
            ``environ["mks_hardening.origin"]`` and ``environ["mks_hardening.session"]`` are available if outer
            middleware has set them.

    Raises:
        ConfigurationError: ``group`` is empty or unknown, a path does not begin with a slash, or ``key`` is not
            callable.
    """

    __slots__ = ("_listed", "_methods", "_paths", "group", "key")

    def __init__(
        self,
        group: str,
        *,
        limiter: Limiter | None = None,
        methods: Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        key: LimitKey = limit_by_address,
    ) -> None:
        if not isinstance(group, str) or not group:
            raise ConfigurationError("group must be the name of a group of limits", parameter="group")
        if limiter is not None:
            offers(limiter, "hit", parameter="limiter", kind="a Limiter")
            _check_group(group, limiter)
        if not callable(key):
            raise ConfigurationError("key must be callable", parameter="key")
        self.group: str = group
        self.key: LimitKey = key
        self._methods = _methods(methods)
        paths = (path,) if isinstance(path, str) else path
        listed = None if paths is None else strings(paths, parameter="path", of="paths")
        self._listed = None if listed is None else frozenset(listed)
        self._paths = None if listed is None else PathRules(listed, parameter="path")

    def applies(self, method: str, path: str) -> bool:
        """Return whether requests with this method and path count."""
        # Frameworks treat "post" as POST, so a lower-case method must not escape the rule.
        return (self._methods is None or method.upper() in self._methods) and (
            self._paths is None or self._paths.covers(path)
        )

    def covers(self, other: RateLimitRule) -> bool:
        """Return whether this rule counts all requests of ``other`` by a key that the client cannot choose."""
        return (
            not counts_by_header(self.key)
            and (self._methods is None or (other._methods is not None and other._methods <= self._methods))
            and (self._listed is None or (other._listed is not None and other._listed <= self._listed))
        )

    def __repr__(self) -> str:
        return f"RateLimitRule({self.group!r})"


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
            store is unavailable.
        rules: the rules, in order.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        header_style: ``"x"``, ``"ietf"`` or ``"both"``.
        on_refusal: takes the environ and the ``Refusal`` and may return an ``OwnAnswer``.

    Raises:
        ConfigurationError: no rule is given, or an item is not a rule; the limiter does not have the group of a
            rule; a rule counts by user outside the session middleware; a rule counts by an unverified header and no
            other rule counts the same requests by a key that the client cannot choose.
    """

    __slots__ = ("_app", "_limiter", "_origin", "_refuser", "_rules", "_style")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        limiter: Limiter,
        rules: Iterable[RateLimitRule],
        trust: ProxyTrust | None = None,
        header_style: HeaderStyle = "both",
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._limiter = offers(limiter, "hit", parameter="limiter", kind="a Limiter")
        self._rules = instances(rules, RateLimitRule, parameter="rules")
        self._origin = origin_reader(trust)
        self._style: HeaderStyle = choice(header_style, get_args(HeaderStyle), parameter="header_style")
        self._refuser = Refuser("rate_limit", on_refusal)
        if not self._rules:
            raise ConfigurationError("rules must hold at least one RateLimitRule", parameter="rules")
        has_session_inside = any(
            type(inside).__name__ == "SessionTimeoutMiddleware" for inside in wrappers_inside(app)
        )
        for rule in self._rules:
            _check_group(rule.group, limiter)
            if has_session_inside and counts_by_user(rule.key):
                raise ConfigurationError(
                    f"the rule for {rule.group!r} counts by limit_by_user, but here, outside of the session, "
                    "nobody has signed in yet: use the limit decorator at your views, or a key of your own",
                    parameter="rules",
                )
            if counts_by_header(rule.key) and not any(other.covers(rule) for other in self._rules):
                raise ConfigurationError(
                    f"the rule for {rule.group!r} counts by limit_by_header, and a client that sends another value "
                    "each time is never refused: add a rule by limit_by_address for the same requests, or "
                    "say limit_by_header(..., verified=True) if something outside checks the header",
                    parameter="rules",
                )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        decisions: list[LimitDecision] = []
        for rule in self._rules:
            decision = self._hit(rule, environ)
            if decision is None:
                continue
            if not decision.allowed:
                return self._refuser.refuse(
                    environ,
                    start_response,
                    _too_many(decision, language_of(environ.get("HTTP_ACCEPT_LANGUAGE", ""))),
                    name=rule.group,
                    seen=exhausted_limits(decision),
                    client_ip=origin.client_ip,
                    headers=rate_limit_headers(decision, style=self._style),
                )
            decisions.append(decision)
        if not decisions:
            return self._app(environ, start_response)
        state = rate_limit_headers(min(decisions, key=_fewest_remaining), style=self._style)

        def announce(status: str, headers: Headers) -> str:
            if not status.startswith("429"):  # an inner limit has refused the request and set its own headers
                headers += missing_fields(state, headers)
            return status

        # Rate-limit headers set by others, such as a gateway behind the application, are kept.
        return self._app(environ, with_step(start_response, announce))

    def _hit(self, rule: RateLimitRule, environ: WSGIEnvironment) -> LimitDecision | None:
        if not rule.applies(environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")):
            return None
        key = rule.key(environ)
        if key is None:
            return None
        return hits_of_request(environ).take(self._limiter, rule.group, _bounded(key))


def _check_group(group: str, limiter: Limiter) -> None:
    """Check that the limiter has the group; a custom limiter need not list its ``groups``."""
    groups: Collection[str] | None = getattr(limiter, "groups", None)
    if groups is not None and group not in groups:
        raise ConfigurationError(
            f"group {group!r} is unknown to the limiter; it has {', '.join(sorted(groups))}",
            parameter="group",
        )


def _too_many(decision: LimitDecision, language: Language) -> RefusalResponse:
    document = rate_limit_problem(decision, language=language)
    members = {name: value for name, value in document.items() if name not in ("status", "detail")}
    return RefusalResponse("limit", 429, str(document["detail"]), (), language=language, **members)


def _bounded(key: str) -> str:
    """Return a key that every limiter accepts; clients control its text, which may be empty or very long."""
    if 0 < len(key) <= _LONGEST_KEY:
        return key
    return "digest:" + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _fewest_remaining(decision: LimitDecision) -> int:
    return min(decision.remaining, default=0)


def _methods(methods: Iterable[str] | None) -> frozenset[str] | None:
    if methods is None:
        return None
    listed = {method.upper() for method in strings(methods, parameter="methods", of="methods")}
    # HEAD runs the same code as GET, so it costs the same.
    return frozenset(listed | {"HEAD"} if "GET" in listed else listed)
