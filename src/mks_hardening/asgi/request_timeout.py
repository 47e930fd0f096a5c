"""Middleware that gives requests a deadline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.asgi_scope import header, path_below_mount
from mks_hardening._core.web.environ_keys import DEADLINE_KEY
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening._edge.request_timeout.deadline_of_request import RequestDeadline, outer_ends_first
from mks_hardening._edge.request_timeout.request_timeout_rule import RequestTimeoutRule, RequestTimeoutRules
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import raw_headers, send_response, with_readable_headers
from mks_hardening.exceptions import RequestTimeoutError

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening._edge.request_timeout.request_timeout_rule import ResponseDeadline
    from mks_hardening.protocols import Clock

__all__ = ["RequestTimeoutMiddleware"]

_logger: Final = logging.getLogger("mks_hardening.asgi")
_SERVER_ERROR: Final = 500
_GRACE: Final = 0.1  # seconds between the cancellation and the response of an application that has not ended


class RequestTimeoutMiddleware:
    """Middleware that cancels an application that has not begun its response within a deadline.

    The client gets 504, a problem document. The application is cancelled in its own task, as by
    ``asyncio.timeout``: ``finally`` blocks run, transactions are rolled back, and a cancellation by the server is
    passed on as such. Once the response has begun, nothing is cut off unless the rule says ``whole_response``; a
    response is then broken off, so that the client does not take a part for the whole. WebSockets are exempt. The
    time in which the client sends the body of the request counts.

    The application may read its deadline with ``request_deadline(scope)``. Plain functions that a framework runs in
    a worker thread cannot be interrupted: the client gets 504 nevertheless, and the function runs on, unless it
    passes ``request_deadline(scope).timeout(5)`` to its calls of databases and other services. An application that
    does not end when it is cancelled does not delay the response either. Inside another middleware of this class,
    the earlier deadline counts.

    Args:
        app: the ASGI application.
        seconds: seconds for all paths that no rule covers; ``None`` for no deadline.
        rules: deadlines for certain paths; the first that matches decides.
        clock: source of time for ``RequestDeadline``; cancellation follows the event loop's clock.
        on_refusal: takes the scope and the ``Refusal`` (``request_timeout``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: ``seconds`` is not positive, or something that is not a rule.

    Source: RFC 9110 (15.6.5); ASVS 5.0 V16.5.2.
    """

    __slots__ = ("_app", "_monotonic", "_refuser", "_rules")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        seconds: float | timedelta | None = 30,
        rules: Iterable[RequestTimeoutRule] = (),
        clock: Clock = SYSTEM_CLOCK,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._rules = RequestTimeoutRules(seconds, rules, can_cancel=True)
        self._refuser = Refuser("request_timeout", on_refusal)
        self._monotonic: Callable[[], float] = given_clock(clock).monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        limit = self._rules.deadline(path_below_mount(scope)) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        deadline = RequestDeadline(limit.seconds, self._monotonic)
        # After an earlier deadline of an outer middleware, that one responds.
        changes = {} if outer_ends_first(scope, deadline) else {DEADLINE_KEY: deadline}
        await self._run(private_scope(scope, changes), receive, send, limit, deadline)

    async def _run(
        self,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
        limit: ResponseDeadline,
        deadline: RequestDeadline,
    ) -> None:
        import asyncio

        timer = asyncio.timeout(limit.seconds)
        started = dropped = ended = False
        refusal: asyncio.Task[None] | None = None

        def begin_refusal() -> asyncio.Task[None]:
            nonlocal refusal
            refusal = refusal or asyncio.create_task(self._refuse(scope, send, limit))
            return refusal

        async def timed_send(message: Message) -> None:
            nonlocal started, dropped
            if ended:  # a task that the application has left behind
                return
            if not started:
                if timer.expired():  # the application has caught its cancellation
                    await begin_refusal()
                    return
                if message["type"] == "http.response.start":
                    if deadline.was_noticed and message["status"] >= _SERVER_ERROR:
                        dropped = True  # the framework's page for RequestTimeoutError
                        return
                    message, started = with_readable_headers(message), True
                    unfinished.cancel()
                    if not limit.whole_response or _is_event_stream(message):
                        timer.reschedule(None)
                elif dropped:
                    return
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                timer.reschedule(None)  # background work after the response has no deadline
            await send(message)

        # An application may take long to end after its cancellation, for example until a thread has ended. The
        # client does not wait for that.
        unfinished = asyncio.get_running_loop().call_later(limit.seconds + _GRACE, begin_refusal)
        try:
            async with timer:
                await self._app(scope, receive, timed_send)
        except TimeoutError as error:
            if started and timer.expired() and not isinstance(error, RequestTimeoutError):
                raise RequestTimeoutError(limit.seconds) from None
            if started or not (timer.expired() or deadline.was_noticed):
                raise
        except Exception:
            if started or not (timer.expired() or deadline.was_noticed):
                raise
            if not deadline.was_noticed:  # else it is the error that the deadline has raised
                _logger.exception("the application failed while it was cancelled at its deadline")
        finally:
            unfinished.cancel()
            ended = True
        if refusal is not None:
            await refusal
        elif not started and (dropped or timer.expired() or deadline.was_noticed):
            await self._refuse(scope, send, limit)

    async def _refuse(self, scope: dict[str, Any], send: Send, limit: ResponseDeadline) -> None:
        response = self._refuser.refuse(
            scope,
            limit.refusal,
            accept=header(scope, b"accept") or "",
            seen=f"{limit.seconds:g} s",
            client_ip=request_origin(scope).client_ip,
        )
        await send_response(scope, send, response)


def _is_event_stream(message: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in raw_headers(message)
    )
