"""Liveness and readiness endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.paths import LIVEZ, READYZ
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.health.health_rules import (
    ALIVE,
    PROBE_METHODS,
    WRONG_METHOD,
    HealthRules,
    readiness_response,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.health.readiness import Checks
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock

__all__ = ["HealthMiddleware"]


class HealthMiddleware:
    """Middleware for liveness (``livez``) and readiness (``readyz``) probes; passes all other requests on.

    ``livez`` returns 200 as long as the process can handle requests, without running a check. ``readyz`` runs the
    checks concurrently. It returns 200 with status ``ok``, or ``degraded`` if an optional check failed, and 503
    with ``unavailable`` if a required check failed. A check fails if it raises, returns ``False`` or exceeds the
    timeout. The body lists only the names of the checks with ``ok``, ``failed`` or ``timeout``; the reason is sent
    to the observers (``BackendFailed``). Methods other than GET and HEAD get 405.

    Args:
        app: the WSGI application.
        required: checks by name, for example ``{"database": ping}``, without which no request can be served.
        optional: checks by name whose failure only degrades the service.
        livez: path of the liveness endpoint.
        readyz: path of the readiness endpoint.
        timeout: longest time in seconds that all checks together may take.
        cache_for: seconds for which a result is reused, so that frequent probes share one run of the checks.
        clock: source of time.
        on_refusal: takes the environ and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: a check is not callable, or is both required and optional; a path does not begin with a
            slash; both paths are equal.
    """

    def __init__(
        self,
        app: WSGIApplication,
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
        self._app = wsgi_application(app)
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

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        path = environ.get("PATH_INFO")
        if path not in self._health.paths:
            return self._app(environ, start_response)
        method = environ["REQUEST_METHOD"]
        if method not in PROBE_METHODS:
            response = self._refuser.refuse(
                environ,
                WRONG_METHOD,
                accept=environ.get("HTTP_ACCEPT", ""),
                seen=method,
                client_ip=request_origin(environ).client_ip,
            )
        elif path == self._health.livez:
            response = ALIVE
        else:
            response = readiness_response(self._health.readiness.verdict())
        return send_response(environ, start_response, response)
