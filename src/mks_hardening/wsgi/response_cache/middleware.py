"""A response cache for any WSGI application, private by default.

Responses are streamed to the client; a copy is stored if the application does not forbid it and the body was sent
completely. All variants of a URL are one entry, so that a hit takes one round trip and an invalidation removes all
of them at once; it also voids a response that is being made at that time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import instance, instances, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.web.environ_keys import ROUTE_KEY
from mks_hardening._core.web.wsgi_stack import wrappers_inside, wsgi_application
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.cacheable_request import (
    bypass_reason,
    request_control,
    response_key,
)
from mks_hardening._edge.response_cache.http_caching import is_not_modified, without_content
from mks_hardening._edge.response_cache.stored_responses import (
    CacheableRequest,
    StoredResponse,
    StoredResponses,
    path_tag,
)
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock
from mks_hardening.wsgi.response_cache._invalidation import Invalidation
from mks_hardening.wsgi.response_cache._recording import Recording

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ResponseCacheMiddleware"]


# Safe methods: they do not request a change (RFC 9110, 9.2.1).
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class ResponseCacheMiddleware:
    """Caches whole responses to GET requests, for the paths that a rule names.

    Without ``identity`` in the rule, requests that identify the user (Cookie, Authorization, REMOTE_USER, a client
    certificate, fields of an authenticating proxy) bypass the cache, and responses marked ``private`` are never
    stored. Also never stored are responses with Set-Cookie, with ``no-store`` or ``no-cache``, with a status
    other than 200, with ``Vary: *``, incomplete ones, those that contain the request's CSP nonce (any compressed
    response, if there is a nonce), and those for which the application read or changed the session or read the CSRF
    token. (With ``identity``, and inside ``SessionTimeoutMiddleware``, a response that only read the session is
    stored for requests with the same cookies.) Requests that name a host, scheme or path in a forwarding field that
    no wrapper has resolved have entries of their own.

    A request with a method other than GET, HEAD, OPTIONS or TRACE whose response is 2xx or 3xx invalidates the
    stored responses of its path, and of the paths in ``Location`` and ``Content-Location`` (RFC 9111, 4.4).

    Wrap the application directly in this middleware, then pass it to ``harden_wsgi``, ``Hardening`` or
    ``hardened``. It may also wrap session and CSRF middleware.

    Args:
        app: the application.
        cache: the cache for the responses.
        rules: the first rule that matches the path applies.
        max_body: maximum size of a stored body in bytes.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid, or ``app`` contains a wrapper that must be outside this one.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        cache: BaseCache,
        rules: Iterable[CacheRule],
        max_body: int = 1_048_576,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._app = wsgi_application(app)
        _refuse_outside(app)
        self._cache = instance(cache, BaseCache, parameter="cache")
        self._rules = instances(rules, CacheRule, parameter="rules")
        most = whole_number(max_body, parameter="max_body", minimum=0)
        self._stored = StoredResponses(cache, max_body=most, clock=given_clock(clock))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond from the cache, or call the application and store a copy of its response."""
        request = self._cacheable(environ)
        if request is None:
            if environ["REQUEST_METHOD"] not in _SAFE:
                return Invalidation(self._invalidate_paths, environ, start_response).answer(self._app)
            return self._app(environ, start_response)
        control = request_control(environ)
        variants = self._stored.variants(request)
        answer = self._stored.select_response(environ, variants, control)
        if answer is not None:
            if variants and "route" in variants:
                environ.setdefault(ROUTE_KEY, variants["route"])
            return self._from_cache(environ, answer, start_response)
        if "only-if-cached" in control:
            start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        # HEAD requests are served from stored GET responses, but have no body to store.
        lease = self._stored.begin(request) if environ["REQUEST_METHOD"] == "GET" else None
        if lease is None:
            return self._app(environ, start_response)
        return Recording(self._stored, request, lease, start_response).answer(self._app)

    def _invalidate_paths(self, paths: Iterable[str]) -> None:
        cached = [path for path in paths if any(rule.matches(path) for rule in self._rules)]
        if cached:
            self._cache.invalidate_tags(*map(path_tag, cached))

    def _cacheable(self, environ: WSGIEnvironment) -> CacheableRequest | None:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        rule = next((rule for rule in self._rules if rule.matches(path)), None)
        if rule is None:
            return None
        obstacle = bypass_reason(environ, rule)
        identity = rule.identity(environ) if rule.identity is not None and obstacle is None else None
        if obstacle is None and rule.identity is not None and identity is None:
            obstacle = "identity"
        if obstacle is not None:
            self._cache.count_bypass(obstacle)
            return None
        key = response_key(environ, rule, identity)
        tags = (*rule.tags, path_tag(path))
        return CacheableRequest(environ, rule, key, tags, identity is not None)

    def _from_cache(
        self, environ: WSGIEnvironment, answer: StoredResponse, start_response: StartResponse
    ) -> Iterable[bytes]:
        headers = [*((name, value) for name, value in answer.headers), ("Age", str(self._stored.age(answer)))]
        if is_not_modified(environ, headers):
            start_response("304 Not Modified", without_content(headers))
            return [b""]
        start_response(answer.status, headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]


# Their decisions hold for one request only: a nonce, an id, the client's address, whether a rate limit is exceeded.
_OUTSIDE: Final = frozenset(
    {
        *("TrustedProxyMiddleware", "SecurityHeadersMiddleware", "RequestLoggingMiddleware"),
        *("HTTPSRedirectMiddleware", "HealthMiddleware", "RateLimitMiddleware"),
    }
)


def _refuse_outside(app: WSGIApplication) -> None:
    for inside in wrappers_inside(app):
        name = type(inside).__name__
        if name in _OUTSIDE:
            raise ConfigurationError(
                f"ResponseCacheMiddleware must stand inside {name}, directly around your application: wrap the "
                "application first, then hand it to harden_wsgi, Hardening or hardened",
                parameter="app",
            )
