"""Paths and responses of the health endpoints."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import text_of
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening._core.web.paths import PathRules
from mks_hardening._edge.health.readiness import Checks, Readiness, ReadinessResult
from mks_hardening._edge.refusal_response import FixedResponse, RefusalResponse
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["ALIVE", "PROBE_METHODS", "WRONG_METHOD", "HealthRules", "readiness_response"]

_NO_STORE: Final = (("Cache-Control", "no-store"),)
_JSON: Final = "application/json"
ALIVE: Final = FixedResponse(200, json.dumps({"status": "ok"}), _JSON, _NO_STORE)
WRONG_METHOD: Final = RefusalResponse("method", 405, "Use GET or HEAD.", (("Allow", "GET, HEAD"),))
PROBE_METHODS: Final = frozenset({"GET", "HEAD"})


class HealthRules:
    """The validated options of ``HealthMiddleware``, with the same arguments.

    Attributes:
        livez: path of the liveness endpoint.
        paths: both paths.
        readiness: the checks.
    """

    __slots__ = ("livez", "paths", "readiness")

    def __init__(
        self,
        *,
        required: Checks,
        optional: Checks,
        livez: str,
        readyz: str,
        timeout: float | timedelta,
        cache_for: float | timedelta,
        clock: Clock,
    ) -> None:
        for parameter, path in (("livez", livez), ("readyz", readyz)):
            PathRules((text_of(path, parameter=parameter),), parameter=parameter)
        if livez == readyz:
            raise ConfigurationError("livez and readyz must differ", parameter="readyz")
        self.livez: str = livez
        self.paths: frozenset[str | None] = frozenset({livez, readyz})
        self.readiness: Readiness = Readiness(
            required=required,
            optional=optional,
            timeout=seconds(timeout, parameter="timeout", allow_zero=False),
            cache_for=seconds(cache_for, parameter="cache_for"),
            clock=given_clock(clock),
        )


def readiness_response(verdict: ReadinessResult) -> FixedResponse:
    """Return the response to a readiness probe: 503 if a required check failed, else 200."""
    body = json.dumps({"status": verdict.status, "checks": dict(verdict.checks)})
    return FixedResponse(503 if verdict.status == "unavailable" else 200, body, _JSON, _NO_STORE)
