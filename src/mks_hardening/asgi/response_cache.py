"""A response cache for any ASGI application, private by default.

Responses are streamed to the client; a copy is stored if the application does not forbid it and the body was sent
completely. An invalidation also voids a response that is being made at that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.memo import Memo
from mks_hardening._core.operations import arun
from mks_hardening._core.resilience.budget import outside_budget
from mks_hardening._core.web.asgi_scope import method_of, mount_of, path_below_mount, query_of, route_of
from mks_hardening._core.web.environ_keys import ROUTE_KEY, header_key
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.cacheable_request import CONDITIONS, CacheableRequest, RequestHead
from mks_hardening._edge.response_cache.response_cache import ResponseCache
from mks_hardening._edge.response_cache.response_choice import ResponseChoice
from mks_hardening._edge.response_cache.response_recorder import ResponseRecorder, ServedResponse
from mks_hardening._edge.safe_methods import SAFE_METHODS
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import decoded, encoded, raw_headers, with_headers, with_readable_headers
from mks_hardening.protocols import Clock

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, RawHeaders, Receive, Scope, Send
    from mks_hardening.cache import BaseCache

__all__ = ["ResponseCacheMiddleware"]


class ResponseCacheMiddleware:
    """Caches whole responses to GET requests, for the paths that a rule names.

    Without ``identity`` in the rule, requests that identify the user (Cookie, Authorization, a user that outer
    middleware has authenticated, a client certificate, fields of an authenticating proxy) bypass the cache, and
    responses marked ``private`` are never stored. Also never stored are responses with Set-Cookie, with
    ``no-store`` or ``no-cache``, with a status other than 200, with ``Vary: *``, incomplete ones, files that the
    server reads itself (``pathsend``), those with trailers, those that contain the request's CSP nonce (any
    compressed response, if there is a nonce), and those for which the application read or changed the session or
    read the CSRF token. (With ``identity``, and inside ``SessionTimeoutMiddleware``, a response that only read the
    session is stored for requests with the same cookies.) Requests that name a host, scheme or path in a forwarding
    field that no wrapper has resolved have entries of their own. WebSockets pass.

    Of requests for the same response, one makes it and the others wait for it. A response that cannot be stored is
    not waited for again.

    With ``stale_while_revalidate``, the request that finds a stale response makes the new one in its own task,
    after the client has the stale one.

    A request with a method that is not safe (such as POST) whose response is 2xx or 3xx invalidates the
    stored responses of its path, and of the paths in ``Location`` and ``Content-Location`` (RFC 9111, 4.4).

    Wrap the application directly in this middleware, then pass it to ``harden_asgi`` or ``Hardening``. It may also
    wrap session and CSRF middleware.

    Args:
        app: the ASGI application.
        cache: the cache for the responses.
        rules: the first rule that matches the path applies; their ``identity`` gets the scope.
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
        app: ASGIApplication,
        *,
        cache: BaseCache,
        rules: Iterable[CacheRule],
        max_body: int = 1_048_576,
        compute_wait: float | timedelta = 3.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._app = asgi_application(app)
        self._responses = ResponseCache(
            app, cache=cache, rules=rules, max_body=max_body, compute_wait=compute_wait, clock=clock
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = _request_head(scope)
        admitted = self._responses.admit(head)
        if admitted is None:
            if head.method in SAFE_METHODS:
                await self._app(scope, receive, send)
            else:
                await self._change(head, scope, receive, send)
            return
        rule, head = admitted
        request = await arun(self._responses.request(head, rule, scope))
        if request is None:
            await self._app(scope, receive, send)
            return
        lookup = await arun(self._responses.look_up(request))
        if lookup.served is not None:
            if lookup.route is not None:
                private_scope(scope).setdefault(ROUTE_KEY, lookup.route)
            await _send_whole(send, lookup.served)
            if lookup.refresh:
                await self._refresh(scope, request)
            return
        inner = private_scope(scope)
        recorder = self._responses.recorder(request, lookup, inner)
        if recorder is None:
            await self._app(scope, receive, send)
            return
        inner["headers"] = _adapted(inner, request, lookup.choice)
        await self._record(recorder, inner, receive, send)

    async def _record(self, recorder: ResponseRecorder, scope: Scope, receive: Receive, send: Send) -> None:
        recording = _Recording(recorder, scope, send)
        try:
            await self._app(scope, receive, recording.send)
        except Exception as error:
            if not await recording.replace(error):
                raise
        finally:
            await arun(recorder.drop("cut short"))

    async def _refresh(self, scope: Scope, request: CacheableRequest) -> None:
        """Make the response that replaces a stale one, in the task of a request whose client has that one."""
        import asyncio

        with outside_budget():
            lookup = await arun(self._responses.begin_refresh(request))
            inner = {**scope}
            recorder = None if lookup is None else self._responses.recorder(request, lookup, inner)
            if lookup is None or recorder is None:
                return
            inner["headers"] = _adapted(inner, request, lookup.choice)
            messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

            async def receive() -> Message:
                if messages:
                    return messages.pop()
                never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
                return await never  # until the application gives up waiting for a disconnect

            try:
                await self._record(recorder, inner, receive, _no_client)
            except Exception as error:  # noqa: BLE001 - logged
                self._responses.log_failed_refresh(error)

    async def _change(self, head: RequestHead, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an unsafe request on, and invalidate paths before the first byte of its response and after its end.

        Twice, because an application may commit its transaction after the response: a request in between would
        store the old page again.
        """
        tags: tuple[str, ...] = ()

        async def invalidating_send(message: Message) -> None:
            nonlocal tags
            if message["type"] == "http.response.start":
                message = with_readable_headers(message)
                headers = decoded(raw_headers(message))
                tags = self._responses.changed_tags(head, message["status"], headers)
                if tags:
                    await arun(self._responses.invalidate(tags))
            await send(message)

        try:
            await self._app(scope, receive, invalidating_send)
        finally:
            if tags:
                await arun(self._responses.invalidate(tags))


class _Recording:
    """The messages of a response that the application makes."""

    __slots__ = (
        "_has_started",
        "_has_stored_body",
        "_is_raw",
        "_recorder",
        "_scope",
        "_send_error",
        "_send_to_server",
    )

    def __init__(self, recorder: ResponseRecorder, scope: Scope, send: Send) -> None:
        self._recorder = recorder
        self._scope = scope
        self._send_to_server = send
        self._send_error: OSError | None = None
        self._has_started = False
        self._has_stored_body = False
        self._is_raw = False  # nothing more to look at

    async def send(self, message: Message) -> None:
        """Send a message of the application, or what replaces it."""
        if self._is_raw:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._continue(message)
        elif message["type"] in _FILES:
            await arun(self._recorder.drop("file"))
            if self._has_stored_body:
                await self._end()
            else:
                self._is_raw = True
                await self._send(message)
        elif not (self._recorder.has_replaced or self._has_stored_body):
            await self._send(message)

    async def _send(self, message: Message) -> None:
        try:
            await self._send_to_server(message)
        except OSError as error:  # the client has left (ASGI 2.4)
            self._send_error = error
            raise

    async def _start(self, message: Message) -> None:
        message = with_readable_headers(message)
        headers = raw_headers(message)
        if message.get("trailers"):
            await arun(self._recorder.drop("trailers"))
        served = await arun(self._recorder.start(message["status"], decoded(headers)))
        self._has_started = True
        if self._recorder.has_replaced:
            await _send_whole(self._send, served)
        elif served.body is not None:
            self._has_stored_body = True
            await self._send(
                with_headers({**message, "status": served.status, "trailers": False}, encoded(served.headers))
            )
        else:
            await self._send(message)

    async def _continue(self, message: Message) -> None:
        recorder = self._recorder
        if recorder.has_replaced:
            return
        if recorder.append(message.get("body", b"")):
            await arun(recorder.drop("size"))
        is_last = not message.get("more_body", False)
        if not self._has_stored_body:
            await self._send(message)
        elif is_last:
            await self._end()
        if is_last:
            route = self._scope.get(ROUTE_KEY) or route_of(self._scope)
            if route is not None:
                self._scope[ROUTE_KEY] = route
            await arun(recorder.finish())

    async def _end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def replace(self, error: Exception) -> bool:
        """Send a stored response instead of an exception, if there is one and nothing was sent yet."""
        if self._send_error is not None:  # nobody is there, and it says nothing about the response
            return False
        if self._recorder.has_replaced:
            # The client has the stored response. Frameworks raise the exception after their error page.
            self._recorder.log_error(error)
            return True
        if self._has_started or not self._recorder.can_replace_errors:
            await arun(self._recorder.drop("error"))
            return False
        self._recorder.log_error(error)
        await _send_whole(self._send, await arun(self._recorder.replace_error()))
        return True


async def _send_whole(send: Send, served: ServedResponse) -> None:
    await send({"type": "http.response.start", "status": served.status, "headers": encoded(served.headers)})
    await send({"type": "http.response.body", "body": served.body or b""})


async def _no_client(_message: Message) -> None:
    return


_FILES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


def _variable_of(name: bytes) -> str:
    text = name.decode("latin-1")
    # An application does not see X_A as X-A, so they must stay apart here.
    key = header_key(text.replace("_", "__"))
    return key.removeprefix("HTTP_") if key in {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} else key


_VARIABLES: Final[Memo[bytes, str]] = Memo(_variable_of)


def _request_head(scope: Scope) -> RequestHead:
    variables: dict[str, Any] = {}
    for name, value in scope.get("headers") or ():
        key = _VARIABLES[name]
        text = value.decode("latin-1")
        if key in variables:
            # HTTP/2 splits cookies into several lines (RFC 9113, 8.2.3).
            text = f"{variables[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        variables[key] = text
    if _is_known_user(scope):
        variables["REMOTE_USER"] = "known"
    server = scope.get("server")
    return RequestHead(
        method_of(scope),
        scope.get("scheme", "http"),
        variables.get("HTTP_HOST") or (f"{server[0]}:{server[1]}" if server else ""),
        mount_of(scope),
        path_below_mount(scope),
        query_of(scope),
        variables,
    )


def _is_known_user(scope: Scope) -> bool:
    """Whether a server or outer middleware has identified the user (Starlette's authentication, TLS extension)."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    tls: Mapping[str, Any] = extensions.get("tls") or {}
    return bool(
        scope.get("REMOTE_USER")
        or getattr(scope.get("user"), "is_authenticated", False)
        or tls.get("client_cert_name")
        or tls.get("client_cert_chain")
    )


def _adapted(scope: Scope, request: CacheableRequest, choice: ResponseChoice) -> RawHeaders:
    """Return the header fields with which the application makes a response for all clients."""
    dropped = {*CONDITIONS}
    if "HTTP_COOKIE" not in request.head.variables:  # harmless ones
        dropped.add("HTTP_COOKIE")
    headers = [(name, value) for name, value in scope.get("headers") or () if _VARIABLES[name] not in dropped]
    validators = {} if choice.validate is None else choice.validate.validators()
    return headers + [
        (key.removeprefix("HTTP_").replace("_", "-").lower().encode(), value.encode("latin-1"))
        for key, value in validators.items()
    ]
