"""Whether the process lives, and whether it may be sent requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening.events import BackendFailed
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._answers import FixedAnswer
from mks_hardening.wsgi._paths import PathRules

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening.protocols import Clock

__all__ = ["HealthMiddleware"]

Check = Callable[[], object]
Checks = Mapping[str, Check] | Iterable[tuple[str, Check]]

_NO_STORE: Final = (("Cache-Control", "no-store"),)
_JSON: Final = "application/json"
_ALIVE: Final = FixedAnswer(200, json.dumps({"status": "ok"}), _JSON, _NO_STORE)
_WRONG_METHOD: Final = FixedAnswer(
    405, "Method Not Allowed\n", "text/plain; charset=utf-8", (("Allow", "GET, HEAD"), *_NO_STORE)
)


class HealthMiddleware:
    """Answers ``livez`` and ``readyz``; all other requests go on to the application.

    ``livez`` says that the process answers, and asks nobody. ``readyz`` runs the checks side by side: 200 with
    status ``ok``, or ``degraded`` when an optional one failed; 503 with ``unavailable`` when a required one did.
    A check fails by raising, by returning ``False``, or by taking too long. The body names the checks and says
    ``ok``, ``failed`` or ``timeout``, nothing else; the reason goes to the observers (``BackendFailed``).

    Args:
        app: the WSGI application.
        required: checks by name, for example ``{"database": ping}``; without them no request can be served.
        optional: checks by name of what only degrades the service.
        livez: path of the first answer.
        readyz: path of the second one.
        timeout: longest time in seconds that all checks together may take.
        cache_for: seconds for which a result is given out again, so that many probes cost one round of checks.
        clock: source of time.

    Raises:
        ConfigurationError: a check is not callable, or both required and optional; a path without leading slash;
            both paths equal.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        required: Checks,
        optional: Checks = (),
        livez: str = "/livez",
        readyz: str = "/readyz",
        timeout: float | timedelta = 0.8,
        cache_for: float | timedelta = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._app = app
        needed, wanted = _named(required, "required"), _named(optional, "optional")
        if needed.keys() & wanted.keys():
            raise ConfigurationError("a check is either required or optional", parameter="optional")
        PathRules((livez, readyz), parameter="livez/readyz")
        if livez == readyz:
            raise ConfigurationError("livez and readyz must differ", parameter="readyz")
        self._livez = livez
        self._readyz = readyz
        self._required = frozenset(needed)
        self._checks = {**needed, **wanted}
        self._runs: dict[str, _Run] = {}
        self._timeout = seconds(timeout, parameter="timeout", allow_zero=False)
        self._cache_for = seconds(cache_for, parameter="cache_for")
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[float, FixedAnswer] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        path = environ.get("PATH_INFO")
        if path not in (self._livez, self._readyz):
            return self._app(environ, start_response)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _WRONG_METHOD.send(environ, start_response)
        answer = _ALIVE if path == self._livez else self._readiness()
        return answer.send(environ, start_response)

    def _readiness(self) -> FixedAnswer:
        # A lock that a fork left locked, or a round that takes too long, must not make probes wait for ever.
        locked = self._lock.acquire(timeout=self._timeout)
        try:
            now = self._clock.monotonic()
            if self._kept is None or now - self._kept[0] >= self._cache_for:
                self._kept = now, _answer(self._run(), self._required)
            return self._kept[1]
        finally:
            if locked:
                self._lock.release()

    def _run(self) -> dict[str, str]:
        deadline = self._clock.monotonic() + self._timeout
        for name, check in self._checks.items():
            self._start(name, check)
        results: dict[str, str] = {}
        for name in self._checks:
            run = self._runs[name]
            run.join(max(0.0, deadline - self._clock.monotonic()))
            results[name] = "timeout" if run.is_alive() else run.result
            if results[name] != "ok" and hooks.observers:
                hooks.emit(BackendFailed(name, "health", results[name]))
        return {name: result if result in ("ok", "timeout") else "failed" for name, result in results.items()}

    def _start(self, name: str, check: Check) -> None:
        if name in self._runs and self._runs[name].is_alive():
            return  # while a check hangs, no second one is started
        self._runs[name] = _Run(name, check)
        self._runs[name].start()


class _Run(threading.Thread):
    """One run of a check; the reason stays inside the process."""

    def __init__(self, name: str, check: Check) -> None:
        super().__init__(name=f"mks-health-{name}", daemon=True)
        self._check = check
        self.result = ""

    def run(self) -> None:
        try:
            self.result = "failed" if self._check() is False else "ok"
        except Exception as error:  # noqa: BLE001 - whatever a check raises means that it failed
            self.result = type(error).__name__


def _answer(results: Mapping[str, str], required: frozenset[str]) -> FixedAnswer:
    failed = {name for name, result in results.items() if result != "ok"}
    status = "unavailable" if failed & required else "degraded" if failed else "ok"
    body = json.dumps({"status": status, "checks": dict(results)})
    return FixedAnswer(503 if status == "unavailable" else 200, body, _JSON, _NO_STORE)


def _named(checks: Checks, parameter: str) -> dict[str, Check]:
    named: dict[str, Check] = dict(checks)
    for name, check in named.items():
        if not isinstance(name, str) or not name or not callable(check):
            raise ConfigurationError(f"{parameter} must map names to callables", parameter=parameter)
    return named
