"""Starlette and FastAPI applications: hardened in place, with errors as problem documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening._core.optional_imports import optional
from mks_hardening._core.web.environ_keys import REQUEST_ID_KEY
from mks_hardening._core.web.problem_details import PROBLEM_TYPE, prefers_text, problem_document
from mks_hardening.contrib._limited_views import OUTAGES_AND_LIMITS, OutageOrLimit, problem_of
from mks_hardening.contrib._openapi_responses import with_problem_responses
from mks_hardening.exceptions import ConfigurationError

with optional("starlette", extra="fastapi"):
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.websockets import WebSocket

    from mks_hardening._core.web.asgi_types import ASGIApplication, Receive, Scope, Send

__all__ = ["ProblemException", "install"]

StarletteApp: TypeAlias = Any
"""Starlette or FastAPI: attributes are replaced that their types do not allow to replace."""

_POLICY_VIOLATION: Final = 1008  # RFC 6455, 7.4.1
_DENIAL: Final = "websocket.http.response"


class ProblemException(HTTPException):
    """A refusal in a view or a dependency; becomes a problem document, or the denial of a WebSocket."""


class _LateStack:
    """The middleware of the application, which Starlette builds with the first request or at startup."""

    __slots__ = ("_build", "_stack", "user_middleware")

    def __init__(self, build: Callable[[], ASGIApplication], user_middleware: list[object]) -> None:
        self._build = build
        self._stack: ASGIApplication | None = None
        self.user_middleware = user_middleware  # so that duplicates are found before it is built

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stack is None:
            self._stack = self._build()
        await self._stack(scope, receive, send)


class _HardenedStack:
    """Replacement of the method ``build_middleware_stack``."""

    __slots__ = ("_stack",)

    def __init__(self, stack: ASGIApplication) -> None:
        self._stack = stack

    def __call__(self) -> ASGIApplication:
        return self._stack


def install(app: StarletteApp, harden: Callable[[ASGIApplication], ASGIApplication]) -> None:
    """Put the middleware around everything in the application, also around its handler of internal errors.

    Args:
        app: the Starlette or FastAPI application.
        harden: wraps an ASGI application.

    Raises:
        ConfigurationError: the application is already hardened, or has served a request.
    """
    if isinstance(app.build_middleware_stack, _HardenedStack):
        raise ConfigurationError(
            "the application is hardened twice: call Hardening once for it", parameter="app"
        )
    if app.middleware_stack is not None:
        raise ConfigurationError(
            "the application has been started already: call Hardening before the first request",
            parameter="app",
        )
    app.build_middleware_stack = _HardenedStack(
        harden(_LateStack(app.build_middleware_stack, app.user_middleware))
    )
    app.exception_handlers.setdefault(ProblemException, _on_problem)
    for kind in OUTAGES_AND_LIMITS:
        app.exception_handlers.setdefault(kind, _on_outage)
    if hasattr(app, "openapi"):
        app.openapi = with_problem_responses(app.openapi)


async def _on_problem(connection: HTTPConnection, error: Exception) -> Response | None:
    refusal = cast("ProblemException", error)
    return await _respond(connection, refusal.status_code, str(refusal.detail), dict(refusal.headers or {}))


async def _on_outage(connection: HTTPConnection, error: Exception) -> Response | None:
    status, detail, fields = problem_of(
        cast("dict[str, Any]", connection.scope), cast("OutageOrLimit", error)
    )
    return await _respond(connection, status, detail, dict(fields))


async def _respond(
    connection: HTTPConnection, status: int, detail: str, fields: dict[str, str]
) -> Response | None:
    # The response depends on Accept, which caches must take into account (RFC 9110, 12.5.5).
    fields = {"Cache-Control": "no-store", "Vary": "Accept", **fields}
    if prefers_text(connection.headers.get("accept", "")):
        response = Response(f"{detail}\n", status, fields, "text/plain")
    else:
        request_id = connection.scope.get(REQUEST_ID_KEY)
        members = {} if request_id is None else {"request_id": request_id}
        response = Response(problem_document(status, detail, **members), status, fields, PROBLEM_TYPE)
    if connection.scope["type"] == "http":
        return response
    socket = cast("WebSocket", connection)
    if _DENIAL in (socket.scope.get("extensions") or {}):
        await socket.send_denial_response(response)
    else:
        await socket.close(_POLICY_VIOLATION)
    return None
