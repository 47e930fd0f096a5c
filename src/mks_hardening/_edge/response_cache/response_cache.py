"""The decisions of the response cache, for the WSGI and the ASGI middleware."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.checks import instances, offers, whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.function_errors import log_function_error
from mks_hardening._core.operations import Call, Op
from mks_hardening._core.store_calls import call_store
from mks_hardening._core.web.wsgi_stack import class_names_inside
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.cacheable_request import (
    CacheableRequest,
    RequestHead,
    bypass_reason,
    cacheable_request,
    path_tag,
)
from mks_hardening._edge.response_cache.changed_paths import changed_paths
from mks_hardening._edge.response_cache.http_caching import Headers
from mks_hardening._edge.response_cache.request_flights import RequestFlight, RequestFlights
from mks_hardening._edge.response_cache.response_choice import ResponseChoice, choose_response
from mks_hardening._edge.response_cache.response_recorder import (
    ResponseRecorder,
    ServedResponse,
    served_response,
)
from mks_hardening._edge.response_cache.stored_responses import FoundResponse, StoredResponses
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

if TYPE_CHECKING:
    from mks_hardening.cache import BaseCache
    from mks_hardening.cache._compute_lease import ComputeLease

__all__ = ["Lookup", "ResponseCache"]

_logger: Final = logging.getLogger("mks_hardening.response_cache")

# Their decisions hold for one request only: a nonce, an id, the client's address, whether a rate limit is exceeded.
_OUTSIDE: Final = frozenset(
    {
        *("TrustedProxyMiddleware", "SecurityHeadersMiddleware", "RequestLoggingMiddleware"),
        *("HTTPSRedirectMiddleware", "HealthMiddleware", "RateLimitMiddleware", "CORSMiddleware"),
        *("RequestLimitsMiddleware", "MaintenanceMiddleware", "ClientRulesMiddleware"),
    }
)


class Lookup(NamedTuple):
    """What was found for a request.

    Attributes:
        served: the response from the cache; None: the application makes one.
        refresh: whether a new response should be made after that.
        route: the application's name for the URL of a stored response.
        choice: what is stored, for the recorder.
        lease: the right to store the response.
        flight: the flight that others wait for.
    """

    served: ServedResponse | None = None
    refresh: bool = False
    route: str | None = None
    choice: ResponseChoice = ResponseChoice()
    lease: ComputeLease | None = None
    flight: RequestFlight | None = None


class ResponseCache:
    """Stored responses and the rules about them.

    Args:
        app: the application, to check what it contains.
        cache: a cache of ``mks_hardening.cache``.
        rules: the first rule that matches the path applies.
        max_body: maximum size of a stored body in bytes.
        compute_wait: seconds that a request waits for the response to another one.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid, or ``app`` contains a wrapper that must be outside.
    """

    def __init__(
        self,
        app: object,
        *,
        cache: BaseCache,
        rules: Iterable[CacheRule],
        max_body: int,
        compute_wait: float | timedelta,
        clock: Clock,
    ) -> None:
        _refuse_outside(app)
        self._cache = offers(
            cache,
            *("get_tagged", "begin", "finish", "abandon", "invalidate_tags"),
            parameter="cache",
            kind="a MemoryCache, RedisCache, TieredCache or NullCache",
        )
        self._rules = instances(rules, CacheRule, parameter="rules")
        most = whole_number(max_body, parameter="max_body", minimum=0)
        self._clock = given_clock(clock)
        self._stored = StoredResponses(cache, max_body=most, clock=self._clock)
        self._flights = RequestFlights(
            wait=seconds(compute_wait, parameter="compute_wait"), monotonic=self._clock.monotonic
        )

    # --- which requests ----------------------------------------------------------------------

    def admit(self, head: RequestHead) -> tuple[CacheRule, RequestHead] | None:
        """Return the rule for a request, and the request as far as it matters for it.

        None: the request must bypass the cache, which is counted if there is a rule. The returned request has no
        cookies if the rule says that all of them are harmless.
        """
        path = head.mount + head.path
        rule = next((rule for rule in self._rules if rule.matches(path)), None)
        if rule is None:
            return None
        cookies = head.variables.get("HTTP_COOKIE")
        if cookies and rule.identity is None and rule.ignores(cookies):
            others = {key: value for key, value in head.variables.items() if key != "HTTP_COOKIE"}
            head = head._replace(variables=others)
        obstacle = bypass_reason(head, rule)
        if obstacle is not None:
            self._cache.count_bypass(obstacle)
            return None
        return rule, head

    def request(self, head: RequestHead, rule: CacheRule, given: object) -> Op[CacheableRequest | None]:
        """Return the request with its key; None if the identity of the rule is None or raises an error.

        Args:
            head: the request.
            rule: the rule.
            given: environ or scope of the request.
        """
        if rule.identity is None:
            return cacheable_request(head, rule, None)
        try:
            identity: object = yield Call(partial(rule.identity, given))
            if identity is not None:
                return cacheable_request(head, rule, identity)
        except Exception as error:  # noqa: BLE001 - nobody must get the page of somebody else
            log_function_error(
                rule.identity,
                error,
                parameter="identity",
                otherwise="the request bypasses the cache",
                logger="mks_hardening.cache",
            )
        self._cache.count_bypass("identity")
        return None

    # --- reading -----------------------------------------------------------------------------

    def look_up(self, request: CacheableRequest) -> Op[Lookup]:
        """Return the response from the cache, or the right to make one.

        If another request is making the response already, wait for it for a bounded time. After that, or if that
        response could not be stored, this request makes its own one, which is not stored.
        """
        lookup, found = yield from self._choice(request)
        # HEAD requests are served from stored GET responses, but have no body to store.
        if lookup.served is not None or request.head.method != "GET":
            return lookup
        flight, ours = self._flights.join(f"{request.key}:{found.variant}")
        if not ours:
            if (yield from self._flights.wait_for(flight)):
                lookup, _ = yield from self._choice(request)
            return lookup
        try:
            lease = yield from self._stored.begin(request, wait=self._flights.wait)
            # Another request or another process was faster.
            if lease is None or self._stored.has_changed(request, found, lease):
                again, _ = yield from self._choice(request)
                if again.served is not None:
                    if lease is not None:
                        yield from call_store(self._cache.abandon, request.key, lease)
                    self._flights.leave(flight)
                    return again
        except BaseException:
            self._flights.leave(flight)
            raise
        return lookup._replace(lease=lease, flight=flight)

    def _choice(self, request: CacheableRequest) -> Op[tuple[Lookup, FoundResponse]]:
        found = yield from self._stored.find(request)
        now = self._clock.time()
        choice = choose_response(found.response, request.wanted, now)
        served = None
        if choice.response is not None:
            served = served_response(request.head, choice.response, now)
        elif choice.unavailable:
            served = _UNAVAILABLE
        refresh = choice.refresh and request.head.method == "GET"
        return Lookup(served, refresh, found.route, choice), found

    def begin_refresh(self, request: CacheableRequest) -> Op[Lookup | None]:
        """Acquire the right to replace a stale response, or return None if somebody else does."""
        flight, ours = self._flights.join(f"{request.key}:refresh")
        if not ours:
            return None
        try:
            lease = yield from self._stored.begin(request)
            if lease is not None:
                lookup, _ = yield from self._choice(request)
                if lookup.refresh:
                    return Lookup(choice=lookup.choice, lease=lease, flight=flight)
                yield from call_store(self._cache.abandon, request.key, lease)
        except BaseException:
            self._flights.leave(flight)
            raise
        self._flights.leave(flight)
        return None

    # --- writing -----------------------------------------------------------------------------

    def recorder(
        self, request: CacheableRequest, lookup: Lookup, shared: Mapping[str, Any]
    ) -> ResponseRecorder | None:
        """Return what records the response that the application makes, or None if nothing has to be recorded."""
        if lookup.lease is None and lookup.choice.fallback is None:
            if lookup.flight is not None:
                self._flights.leave(lookup.flight)
            return None
        return ResponseRecorder(
            self._stored,
            self._flights,
            request,
            choice=lookup.choice,
            lease=lookup.lease,
            flight=lookup.flight,
            shared=shared,
            now=self._clock.time(),
        )

    def log_failed_refresh(self, error: Exception) -> None:
        """Log an exception that no client gets, as the stale response is already sent."""
        _logger.warning("a stale response could not be replaced by a new one", exc_info=error)

    def changed_tags(self, head: RequestHead, status: int, headers: Headers) -> tuple[str, ...]:
        """Return the tags of the stored responses that an unsafe request has made invalid."""
        return tuple(
            path_tag(path)
            for path in changed_paths(head, status, headers)
            if any(rule.matches(path) for rule in self._rules)
        )

    def invalidate(self, tags: Iterable[str]) -> Op[bool]:
        """Invalidate all responses with one of the tags; return whether the cache did."""
        return call_store(self._cache.invalidate_tags, *tags)


_UNAVAILABLE: Final = ServedResponse(504, [("Content-Type", "text/plain"), ("Content-Length", "0")], b"")


def _refuse_outside(app: object) -> None:
    for name in class_names_inside(app):
        if name in _OUTSIDE:
            raise ConfigurationError(
                f"ResponseCacheMiddleware must be inside {name}, directly around your application: wrap the "
                "application first, then hand it to harden_wsgi, harden_asgi, Hardening or hardened",
                parameter="app",
            )
