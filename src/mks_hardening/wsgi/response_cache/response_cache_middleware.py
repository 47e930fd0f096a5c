"""A response cache for any WSGI application, private by default.

Responses are streamed to the client; a copy is stored if the application does not forbid it and the body was sent
completely. An invalidation also voids a response that is being made at that time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from mks_hardening._core.checks import function, instances
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.operations import run
from mks_hardening._core.resilience.budget import outside_budget
from mks_hardening._core.web.environ_keys import ROUTE_KEY
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.cacheable_request import CONDITIONS, CacheableRequest, RequestHead
from mks_hardening._edge.response_cache.response_cache import ResponseCache
from mks_hardening._edge.response_cache.response_choice import ResponseChoice
from mks_hardening._edge.safe_methods import SAFE_METHODS
from mks_hardening.protocols import Clock
from mks_hardening.wsgi.response_cache._invalidation import Invalidation
from mks_hardening.wsgi.response_cache._recording import RecordedBody, StaleBody, status_line

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening.cache import BaseCache

__all__ = ["ResponseCacheMiddleware"]


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

    Of requests for the same response, one makes it and the others wait for it. A response that cannot be stored is
    not waited for again.

    With ``stale_while_revalidate``, the request that finds a stale response makes the new one in ``close()`` of its
    body: the client has the stale one by then, and the request log counts the time to this request.

    A request with a method that is not safe (such as POST) whose response is 2xx or 3xx invalidates the
    stored responses of its path, and of the paths in ``Location`` and ``Content-Location`` (RFC 9111, 4.4).

    Wrap the application directly in this middleware, then pass it to ``harden_wsgi``, ``Hardening`` or
    ``hardened``. It may also wrap session and CSRF middleware.

    Args:
        app: the application.
        cache: the cache for the responses.
        rules: the first rule that matches the path applies.
        max_body: maximum size of a stored body in bytes.
        compute_wait: seconds that a request waits for the response to another one, before it makes one that is not
            stored; 0: it never waits.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid, or ``app`` contains a wrapper that must be outside this one.

    Source: RFC 9111, RFC 9110 (13), RFC 5861.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        cache: BaseCache,
        rules: Iterable[CacheRule],
        max_body: int = 1_048_576,
        compute_wait: float | timedelta = 3.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._app = wsgi_application(app)
        listed = instances(rules, CacheRule, parameter="rules")
        for rule in listed:
            if rule.identity is not None:
                function(rule.identity, parameter="identity")
        self._responses = ResponseCache(
            app, cache=cache, rules=listed, max_body=max_body, compute_wait=compute_wait, clock=clock
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond from the cache, or call the application and store a copy of its response."""
        head = _request_head(environ)
        admitted = self._responses.admit(head)
        if admitted is None:
            if head.method in SAFE_METHODS:
                return self._app(environ, start_response)
            return Invalidation(self._responses, head, start_response).answer(self._app, environ)
        rule, head = admitted
        request = run(self._responses.request(head, rule, environ))
        if request is None:
            return self._app(environ, start_response)
        lookup = run(self._responses.look_up(request))
        if lookup.served is not None:
            if lookup.route is not None:
                environ.setdefault(ROUTE_KEY, lookup.route)
            status, headers, body = lookup.served
            start_response(status_line(status), headers)
            if lookup.refresh:
                return StaleBody(body or b"", partial(self._refresh, environ.copy(), request))
            return [body or b""]
        # A copy, as the application may modify its environ.
        request = request._replace(head=head._replace(variables={**head.variables}))
        recorder = self._responses.recorder(request, lookup, environ)
        if recorder is None:
            return self._app(environ, start_response)
        _adapt(environ, request, lookup.choice)
        return RecordedBody(recorder, start_response).answer(self._app, environ)

    def _refresh(self, environ: WSGIEnvironment, request: CacheableRequest) -> None:
        """Make the response that replaces a stale one, on the thread of a request whose client has that one."""
        with outside_budget():
            lookup = run(self._responses.begin_refresh(request))
            recorder = None if lookup is None else self._responses.recorder(request, lookup, environ)
            if lookup is None or recorder is None:
                return
            environ["wsgi.input"] = io.BytesIO()
            _adapt(environ, request, lookup.choice)
            recorded = RecordedBody(recorder, _no_server)
            try:
                for _ in recorded.answer(self._app, environ):
                    pass
            except Exception as error:  # noqa: BLE001 - logged
                self._responses.log_failed_refresh(error)
            finally:
                recorded.close()


def _request_head(environ: WSGIEnvironment) -> RequestHead:
    get = environ.get
    return RequestHead(
        environ["REQUEST_METHOD"],
        get("wsgi.url_scheme", "http"),
        get("HTTP_HOST") or f"{get('SERVER_NAME')}:{get('SERVER_PORT')}",
        get("SCRIPT_NAME", ""),
        get("PATH_INFO", ""),
        get("QUERY_STRING", ""),
        environ,
    )


def _adapt(environ: WSGIEnvironment, request: CacheableRequest, choice: ResponseChoice) -> None:
    """Let the application make a response for all clients.

    The environ is not copied, because outer wrappers read what the application puts into it (route, refusal).
    """
    for name in CONDITIONS:
        environ.pop(name, None)
    if "HTTP_COOKIE" not in request.head.variables:  # harmless ones
        environ.pop("HTTP_COOKIE", None)
    if choice.validate is not None:
        environ.update(choice.validate.validators())


def _no_server(
    _status: str, _headers: list[tuple[str, str]], _exc_info: object = None, /
) -> Callable[[bytes], object]:
    return len  # write()
