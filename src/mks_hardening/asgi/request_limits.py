"""Middleware that limits the size of requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.asgi_scope import (
    header,
    is_request,
    method_of,
    mount_of,
    path_below_mount,
    raw_target,
)
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening._edge.request_limits.request_limits import (
    LONGEST_DISCARD,
    MOST_DISCARDED,
    BodyLimit,
    RequestHeadSize,
    RequestLimitRule,
    RequestLimits,
    RequestLimitsRules,
    broken_limit,
)
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import send_response

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening._edge.request_limits.request_limits import TooLarge
    from mks_hardening.protocols import Clock

__all__ = ["RequestLimitsMiddleware"]


class RequestLimitsMiddleware:
    """Middleware that refuses requests whose size or slowness exceeds a limit, before the framework reads them.

    Bodies are counted while the application reads them, so that chunked requests and a false ``Content-Length`` are
    noticed. ``RequestLimitError`` is then raised where it reads, and the client gets 413 or 408 whatever the
    application makes of the exception, unless its response has already begun. The application never takes a part of
    a body for the whole. Refusals are problem documents that name the limit: 400, 405, 408, 413, 414, 415 or 431.

    The rest of a refused body is read and discarded, up to 64 MiB and five seconds, since a client that is still
    sending would lose the response if the connection was closed.

    The server and the proxy in front of it need limits of their own: they read the head of a request before any
    middleware does.

    Args:
        app: the ASGI application.
        limits: limits for all paths that no rule covers; ``RequestLimits()`` by default.
        rules: limits for certain paths, for example larger bodies for uploads; the first that matches decides.
        clock: source of time.
        on_refusal: takes the scope and the ``Refusal`` (``request_limits``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: something that is not a limit or rule.

    Source: RFC 9110 (15.5), RFC 6585 (5); ASVS 5.0 V5.2.1; CWE-770.
    """

    __slots__ = ("_app", "_monotonic", "_refuser", "_rules")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        limits: RequestLimits | None = None,
        rules: Iterable[RequestLimitRule] = (),
        clock: Clock = SYSTEM_CLOCK,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._rules = RequestLimitsRules(limits, rules)
        self._refuser = Refuser("request_limits", on_refusal)
        self._monotonic: Callable[[], float] = given_clock(clock).monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if not is_request(scope):
            await self._app(scope, receive, send)
            return
        limits = self._rules.limits(path_below_mount(scope))
        head = _head(scope)
        found = broken_limit(limits, head)
        if found is not None:
            await self._refuse(scope, receive, send, found, unread=head.unread)
        elif scope["type"] != "http" or head.has_body is False:
            await self._app(scope, receive, send)
        else:
            await self._run(scope, receive, send, BodyLimit(limits, head, self._monotonic()))

    async def _run(self, scope: Scope, receive: Receive, send: Send, limit: BodyLimit) -> None:
        import asyncio

        complete = started = False

        async def limited_receive() -> Message:
            nonlocal complete
            if complete:
                return await receive()
            if limit.broken is None:
                try:
                    async with asyncio.timeout(limit.left(self._monotonic())):
                        message = await receive()
                except TimeoutError:
                    limit.broken = "body_seconds"
                else:
                    complete = message["type"] != "http.request" or not message.get("more_body", False)
                    if message["type"] != "http.request":
                        return message
                    if limit.count(len(message.get("body", b"")), self._monotonic()):
                        return message
            # Again at each further call: the rest of a body must not look like the whole.
            raise limit.error()

        async def limited_send(message: Message) -> None:
            nonlocal started
            # What the application makes of the error is dropped; the refusal follows.
            if limit.broken is None or started:
                # Early hints come before the response.
                started = started or message["type"] == "http.response.start"
                await send(message)

        try:
            await self._app(scope, limited_receive, limited_send)
        except Exception:
            if limit.broken is None or started:
                raise
        if limit.broken is not None and not started:
            unread = 0 if complete or limit.broken == "body_seconds" else MOST_DISCARDED
            await self._refuse(scope, receive, send, limit.exceeded(), unread=unread)

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, found: TooLarge, *, unread: int
    ) -> None:
        response = self._refuser.refuse(
            private_scope(scope),
            found.response,
            accept=header(scope, b"accept") or "",
            seen=found.seen,
            client_ip=request_origin(scope).client_ip,
        )
        if not (scope.get("http_version") or "1.1").startswith("1"):
            unread = 0  # HTTP/2 and HTTP/3 end the stream instead
        else:
            response = response.with_headers((*response.headers, ("Connection", "close")))
        # A client that has asked first does not send the body.
        discards = unread > 0 and scope["type"] == "http" and header(scope, b"expect") is None
        rest = partial(_discard, receive, unread) if discards else None
        await send_response(scope, send, response, before_end=rest)


async def _discard(receive: Receive, unread: int) -> None:
    import asyncio

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_DISCARD):
            while unread > 0:
                message = await receive()
                unread -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return


def _head(scope: Scope) -> RequestHeadSize:
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    return RequestHeadSize(
        method=method_of(scope),
        path=mount_of(scope) + path_below_mount(scope),
        raw_path=raw_target(scope),
        target_bytes=len(raw) + len(scope.get("query_string") or b""),
        fields=[len(name) + len(value) for name, value in scope.get("headers") or ()],
        content_length=header(scope, b"content-length"),
        chunked=header(scope, b"transfer-encoding") is not None,
        content_type=header(scope, b"content-type"),
        http_version=scope.get("http_version") or "1.1",
    )
