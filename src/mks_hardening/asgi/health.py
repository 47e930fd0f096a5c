"""Liveness and readiness endpoints."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.asgi_scope import header, method_of, path_below_mount
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.health.health_rules import (
    ALIVE,
    PROBE_METHODS,
    WRONG_METHOD,
    HealthRules,
    readiness_response,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import send_response

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Receive, Scope, Send
    from mks_hardening._edge.health.readiness import Checks
    from mks_hardening._edge.refusal_response import FixedResponse
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock

__all__ = ["HealthMiddleware"]


class HealthMiddleware:
    """Middleware for liveness (``livez``) and readiness (``readyz``) probes; passes all other requests on.

    The responses are those of ``mks_hardening.wsgi.HealthMiddleware``. A check may be ``async def``, which runs on
    the event loop; other checks run in threads, so that none of them blocks the loop.

    Args:
        app: the ASGI application.
        required: checks by name, for example ``{"database": ping}``, without which no request can be served.
        optional: checks by name whose failure only degrades the service.
        livez: path of the liveness endpoint.
        readyz: path of the readiness endpoint.
        timeout: longest time in seconds that all checks together may take.
        cache_for: seconds for which a result is reused, so that frequent probes share one run of the checks.
        clock: source of time.
        on_refusal: takes the scope and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: a check is not callable, or is both required and optional; a path does not begin with a
            slash; both paths are equal.
    """

    def __init__(
        self,
        app: ASGIApplication,
        *,
        required: Checks,
        optional: Checks = (),
        livez: str = LIVEZ,
        readyz: str = READYZ,
        timeout: float | timedelta = 0.8,
        cache_for: float | timedelta = 1.0,
        clock: Clock = SYSTEM_CLOCK,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._refuser = Refuser("health", on_refusal)
        self._health = HealthRules(
            required=required,
            optional=optional,
            livez=livez,
            readyz=readyz,
            timeout=timeout,
            cache_for=cache_for,
            clock=clock,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] == "http":
            path = path_below_mount(scope)
            if path in self._health.paths:
                await send_response(scope, send, await self._response(scope, path))
                return
        await self._app(scope, receive, send)

    async def _response(self, scope: Scope, path: str) -> FixedResponse:
        if method_of(scope) not in PROBE_METHODS:
            return self._refuser.refuse(
                private_scope(scope),
                WRONG_METHOD,
                accept=header(scope, b"accept") or "",
                seen=method_of(scope),
                client_ip=request_origin(scope).client_ip,
            )
        if path == self._health.livez:
            return ALIVE
        return readiness_response(await self._health.readiness.averdict())
