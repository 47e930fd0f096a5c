"""Middleware that gives requests a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.environ_keys import DEADLINE_KEY
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening._edge.request_timeout.deadline_of_request import RequestDeadline, outer_ends_first
from mks_hardening._edge.request_timeout.request_timeout_rule import RequestTimeoutRule, RequestTimeoutRules
from mks_hardening.wsgi._replaceable_response import ReplaceableHead, replaceable_response
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import ExcInfo, Headers, Write
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening._edge.request_timeout.request_timeout_rule import ResponseDeadline
    from mks_hardening.protocols import Clock

__all__ = ["RequestTimeoutMiddleware"]

_SERVER_ERROR: Final = "5"


class RequestTimeoutMiddleware:
    """Middleware that gives each request a deadline, which the application observes.

    A thread cannot be interrupted from outside, so this class cuts nothing off. It puts a ``RequestDeadline`` into
    the environ; the application passes ``request_deadline(environ).timeout(5)`` to its calls of databases and other
    services, none of which then outlasts the deadline. Once it has passed, ``timeout`` raises
    ``RequestTimeoutError``, and the client gets 504 in place of the error page that the framework makes of it. A
    generator may raise it too: the client gets 504 as long as no byte of the response has been sent; after that the
    server must break the response off. A request that computes without such a call runs on: the server must end it
    (``timeout`` of gunicorn). Inside another middleware of this class, the earlier deadline counts. Under ASGI,
    ``mks_hardening.asgi.RequestTimeoutMiddleware`` cancels the application.

    Args:
        app: the WSGI application.
        seconds: seconds for all paths that no rule covers; ``None`` for no deadline.
        rules: deadlines for certain paths; the first that matches decides.
        clock: source of time.
        on_refusal: takes the environ and the ``Refusal`` (``request_timeout``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: ``seconds`` is not positive; something is not a rule, or has ``whole_response``.

    Source: RFC 9110 (15.6.5); ASVS 5.0 V16.5.2.
    """

    __slots__ = ("_app", "_monotonic", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        seconds: float | timedelta | None = 30,
        rules: Iterable[RequestTimeoutRule] = (),
        clock: Clock = SYSTEM_CLOCK,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._rules = RequestTimeoutRules(seconds, rules, can_cancel=False)
        self._refuser = Refuser("request_timeout", on_refusal)
        self._monotonic: Callable[[], float] = given_clock(clock).monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        limit = self._rules.deadline(environ.get("PATH_INFO", ""))
        if limit is None:
            return self._app(environ, start_response)
        deadline = RequestDeadline(limit.seconds, self._monotonic)
        if outer_ends_first(environ, deadline):
            return self._app(environ, start_response)  # the outer middleware responds
        environ[DEADLINE_KEY] = deadline

        def refusal() -> list[bytes]:
            return self._refuse(environ, start_response, limit)

        return replaceable_response(self._app, environ, _DeadlineHead(start_response, deadline), refusal)

    def _refuse(
        self, environ: WSGIEnvironment, start_response: StartResponse, limit: ResponseDeadline
    ) -> list[bytes]:
        response = self._refuser.refuse(
            environ,
            limit.refusal,
            accept=environ.get("HTTP_ACCEPT", ""),
            seen=f"{limit.seconds:g} s",
            client_ip=request_origin(environ).client_ip,
        )
        return send_response(environ, start_response, response)


class _DeadlineHead(ReplaceableHead):
    """Head of the application's response, dropped if it is that of an error page after the deadline."""

    _was_dropped = False

    def __init__(self, start_response: StartResponse, deadline: RequestDeadline) -> None:
        super().__init__(start_response)
        self._deadline = deadline

    def must_refuse(self, *, failed: bool) -> bool:
        """Return whether the application has noticed the deadline and has no response of its own."""
        return not self.head_sent and (self._was_dropped or (failed and self._deadline.was_noticed))

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        """Implement ``start_response`` of PEP 3333."""
        if self._deadline.was_noticed and status.startswith(_SERVER_ERROR) and not self.head_sent:
            self._was_dropped = True
            self._held = None
            exc_info = None
            return _drop
        self._was_dropped = False
        try:
            return super().start_response(status, headers, exc_info)
        finally:
            exc_info = None  # the traceback refers to this frame


def _drop(_data: bytes, /) -> None:
    """Drop what is written after a head that was dropped."""
