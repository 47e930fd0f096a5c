"""Liveness and readiness endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import text_of
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.origin.proxy_trust import request_origin
from mks_hardening._core.web.paths import LIVEZ, READYZ, PathRules
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.readiness import Checks, Readiness, ReadinessResult
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._refusal_response import FixedResponse, RefusalResponse, Refuser

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock

__all__ = ["HealthMiddleware"]

_NO_STORE: Final = (("Cache-Control", "no-store"),)
_JSON: Final = "application/json"
_ALIVE: Final = FixedResponse(200, json.dumps({"status": "ok"}), _JSON, _NO_STORE)
_WRONG_METHOD: Final = RefusalResponse("method", 405, "Ask with GET or HEAD.", (("Allow", "GET, HEAD"),))


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
        on_refusal: takes the environ and the ``Refusal`` and may return an ``OwnAnswer``.

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
        for parameter, path in (("livez", livez), ("readyz", readyz)):
            PathRules((text_of(path, parameter=parameter),), parameter=parameter)
        if livez == readyz:
            raise ConfigurationError("livez and readyz must differ", parameter="readyz")
        self._livez = livez
        self._readyz = readyz
        self._readiness = Readiness(
            required=required,
            optional=optional,
            timeout=seconds(timeout, parameter="timeout", allow_zero=False),
            cache_for=seconds(cache_for, parameter="cache_for"),
            clock=given_clock(clock),
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        path = environ.get("PATH_INFO")
        if path not in (self._livez, self._readyz):
            return self._app(environ, start_response)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._refuser.refuse(
                environ,
                start_response,
                _WRONG_METHOD,
                seen=environ["REQUEST_METHOD"],
                client_ip=request_origin(environ).client_ip,
            )
        answer = _ALIVE if path == self._livez else _answer(self._readiness.verdict())
        return answer.send(environ, start_response)


def _answer(verdict: ReadinessResult) -> FixedResponse:
    body = json.dumps({"status": verdict.status, "checks": dict(verdict.checks)})
    return FixedResponse(503 if verdict.status == "unavailable" else 200, body, _JSON, _NO_STORE)
