"""A response cache for any WSGI application, private by default.

Answers stream through as they are made; a copy is kept when the application said nothing against it and its
body was sent whole. All variants of a URL are one entry, so that a hit is one round trip and an invalidation
forgets all of them at once; it also wins against an answer that was being made meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import instance, several, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.web.environ_keys import ROUTE_KEY
from mks_hardening._core.web.wsgi_stack import wrappers_inside, wsgi_application
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.response_cache._cacheable_requests import (
    answer_key,
    request_control,
    request_obstacle,
)
from mks_hardening.cache.response_cache._http_rules import is_not_modified, without_content
from mks_hardening.cache.response_cache._invalidation import Invalidation
from mks_hardening.cache.response_cache._recording import Recording
from mks_hardening.cache.response_cache._stored_responses import (
    CacheableRequest,
    StoredResponse,
    StoredResponses,
    path_tag,
)
from mks_hardening.cache.response_cache.cache_rule import CacheRule
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ResponseCacheMiddleware"]


# RFC 9110, 9.2.1: they ask for no change.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class ResponseCacheMiddleware:
    """Keeps whole answers to GET requests, for those paths that a rule names.

    Without ``identity`` in the rule, requests that tell who asks (Cookie, Authorization, REMOTE_USER, a client
    certificate, fields of an authenticating proxy) and answers marked ``private`` are never kept or answered from
    the cache. Answers with Set-Cookie, with ``no-store`` or ``no-cache``, other than 200, with ``Vary: *``, cut
    short, or with the request's CSP nonce inside (compressed ones too, where there is a nonce) are never kept, nor
    are those for which the application read or changed the session or read the CSRF token. (With ``identity``, and
    inside ``SessionTimeoutMiddleware``, one that only read the session is kept for the same cookies.) Requests that
    name a host, scheme or path in a forwarding field that nobody resolved have entries of their own.

    A successful request with another method than GET, HEAD, OPTIONS or TRACE forgets what is kept of its path, and
    of the paths in ``Location`` and ``Content-Location`` (RFC 9111, 4.4).

    It stands directly around the application: wrap that first, then hand it to ``harden_wsgi``, ``Hardening`` or
    ``hardened``. Around session and CSRF wrappers it works too.

    Args:
        app: the application.
        cache: where to keep answers.
        rules: the first that matches the path counts.
        max_body: bytes of the largest body kept.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible, or ``app`` holds a wrapper that must stand outside.
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
        self._rules = several(rules, CacheRule, parameter="rules")
        most = whole_number(max_body, parameter="max_body", minimum=0)
        self._kept = StoredResponses(cache, max_body=most, clock=given_clock(clock))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer from the cache, or let the application answer and keep a copy."""
        request = self._cacheable(environ)
        if request is None:
            if environ["REQUEST_METHOD"] not in _SAFE:
                return Invalidation(self._forget_paths, environ, start_response).answer(self._app)
            return self._app(environ, start_response)
        control = request_control(environ)
        variants = self._kept.variants(request)
        answer = self._kept.fitting(environ, variants, control)
        if answer is not None:
            if variants and "route" in variants:
                environ.setdefault(ROUTE_KEY, variants["route"])
            return self._from_cache(environ, answer, start_response)
        if "only-if-cached" in control:
            start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        # HEAD is answered from what GET has kept, but has no body to keep.
        lease = self._kept.begin(request) if environ["REQUEST_METHOD"] == "GET" else None
        if lease is None:
            return self._app(environ, start_response)
        return Recording(self._kept, request, lease, start_response).answer(self._app)

    def _forget_paths(self, paths: Iterable[str]) -> None:
        cached = [path for path in paths if any(rule.matches(path) for rule in self._rules)]
        if cached:
            self._cache.invalidate_tags(*map(path_tag, cached))

    def _cacheable(self, environ: WSGIEnvironment) -> CacheableRequest | None:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        rule = next((rule for rule in self._rules if rule.matches(path)), None)
        if rule is None:
            return None
        obstacle = request_obstacle(environ, rule)
        identity = rule.identity(environ) if rule.identity is not None and obstacle is None else None
        if obstacle is None and rule.identity is not None and identity is None:
            obstacle = "identity"
        if obstacle is not None:
            self._cache.count_bypass(obstacle)
            return None
        key = answer_key(environ, rule, identity)
        tags = (*rule.tags, path_tag(path))
        return CacheableRequest(environ, rule, key, tags, identity is not None)

    def _from_cache(
        self, environ: WSGIEnvironment, answer: StoredResponse, start_response: StartResponse
    ) -> Iterable[bytes]:
        headers = [*((name, value) for name, value in answer.headers), ("Age", str(self._kept.age(answer)))]
        if is_not_modified(environ, headers):
            start_response("304 Not Modified", without_content(headers))
            return [b""]
        start_response(answer.status, headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]


# What they decide holds for one request: a nonce, an id, who the client is, whether it is one request too many.
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
