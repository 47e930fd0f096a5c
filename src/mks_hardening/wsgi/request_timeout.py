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
from mks_hardening._edge.request_timeout.deadline_of_request import RequestDeadline
from mks_hardening._edge.request_timeout.request_timeout_rule import RequestTimeoutRule, RequestTimeoutRules
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
    request that computes without such a call runs on: the server must end it (``timeout`` of gunicorn). Under ASGI,
    ``mks_hardening.asgi.RequestTimeoutMiddleware`` cancels the application.

    Args:
        app: the WSGI application.
        seconds: seconds for all paths that no rule covers; ``None`` for no deadline.
        rules: deadlines for certain paths; the first that matches decides.
        clock: source of time.
        on_refusal: takes the environ and the ``Refusal`` (``request_timeout``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: ``seconds`` is not positive, or something that is not a rule.

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
        self._rules = RequestTimeoutRules(seconds, rules)
        self._refuser = Refuser("request_timeout", on_refusal)
        self._monotonic: Callable[[], float] = given_clock(clock).monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        limit = self._rules.deadline(environ.get("PATH_INFO", ""))
        if limit is None:
            return self._app(environ, start_response)
        deadline = environ[DEADLINE_KEY] = RequestDeadline(limit.seconds, self._monotonic)
        head = _ErrorHead(start_response, deadline)
        try:
            result = self._app(environ, head.start_response)
        except Exception:
            if head.was_sent or not deadline.was_noticed:
                raise
            return self._refuse(environ, start_response, limit)
        head.app_returned = True
        if not head.was_dropped:
            return result
        close: Callable[[], object] | None = getattr(result, "close", None)
        if close is not None:
            close()
        return self._refuse(environ, start_response, limit)

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


class _ErrorHead:
    """Passes the head of a response on, or drops that of the error page after the deadline.

    Attributes:
        was_sent: whether a head was passed on.
        was_dropped: whether a head was dropped.
        app_returned: whether the application has returned; its response can then no longer be replaced.
    """

    __slots__ = ("_deadline", "_start_response", "app_returned", "was_dropped", "was_sent")

    def __init__(self, start_response: StartResponse, deadline: RequestDeadline) -> None:
        self._start_response = start_response
        self._deadline = deadline
        self.was_sent = False
        self.was_dropped = False
        self.app_returned = False

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
        """Implement ``start_response`` of PEP 3333."""
        if (
            self._deadline.was_noticed
            and status.startswith(_SERVER_ERROR)
            and not (self.was_sent or self.app_returned)
        ):
            self.was_dropped = True
            exc_info = None
            return _drop
        self.was_sent = True
        self.was_dropped = False
        try:
            if exc_info is None:
                return self._start_response(status, headers)
            return self._start_response(status, headers, exc_info)
        finally:
            exc_info = None  # the traceback refers to this frame


def _drop(_data: bytes, /) -> None:
    """Drop what is written after a head that was dropped."""
