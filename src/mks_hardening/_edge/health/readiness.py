"""Readiness of the process: runs the checks concurrently and caches the result."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from mks_hardening._core import hooks
from mks_hardening._core.operations import require_sync_result
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.events import BackendFailed
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    import asyncio

    from mks_hardening.protocols import Clock

__all__ = ["Checks", "Readiness", "ReadinessResult"]

_OVERTIME: Final = 1.0
"""Seconds beyond the time limit after which a check on the event loop is cancelled."""

Check = Callable[[], object]
Checks = Mapping[str, Check] | Iterable[tuple[str, Check]]


class ReadinessResult(NamedTuple):
    """Overall status (``ok``, ``degraded``, ``unavailable``), and ``ok``, ``failed`` or ``timeout`` per check."""

    status: str
    checks: Mapping[str, str]


class Readiness:
    """The readiness checks of one process.

    Raises:
        ConfigurationError: a check is not callable, or is both required and optional.
    """

    def __init__(
        self, *, required: Checks, optional: Checks, timeout: float, cache_for: float, clock: Clock
    ) -> None:
        needed, wanted = _named(required, "required"), _named(optional, "optional")
        if needed.keys() & wanted.keys():
            raise ConfigurationError("a check is either required or optional", parameter="optional")
        self._required = frozenset(needed)
        self._checks = {**needed, **wanted}
        self._timeout = timeout
        self._cache_for = cache_for
        self._clock = clock
        self._cached: tuple[float, ReadinessResult] | None = None
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the state in a forked child, which does not have the threads that run the parent's checks."""
        self._lock = threading.RLock()
        self._runs: dict[str, _Run] = {}

    async def averdict(self) -> ReadinessResult:
        """``verdict`` for asyncio; checks that are ``async def`` run on the event loop, the others in threads."""
        import asyncio

        cached = self._cached
        if cached is not None and self._clock.monotonic() - cached[0] < self._cache_for:
            return cached[1]
        loop = asyncio.get_running_loop()
        done: asyncio.Future[ReadinessResult] = loop.create_future()

        def deliver(result: ReadinessResult) -> None:
            if not done.done():  # the probe has been cancelled
                done.set_result(result)

        def work() -> None:
            result = self.verdict(loop)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(deliver, result)

        # A thread of its own: the pool of the loop may be full of calls to a server that does not respond.
        try:
            threading.Thread(target=work, name="mks-health", daemon=True).start()
        except RuntimeError:  # no more threads available, so none of the checks can run
            return self._overall(dict.fromkeys(self._checks, "failed"))
        return await done

    def verdict(self, loop: asyncio.AbstractEventLoop | None = None) -> ReadinessResult:
        """Return the cached result, or run the checks if it has expired.

        Args:
            loop: event loop for checks that are ``async def``; without one, they fail.
        """
        lock = self._lock
        # A run that takes too long must not block other probes forever.
        locked = lock.acquire(timeout=self._timeout)
        try:
            now = self._clock.monotonic()
            if self._cached is None or now - self._cached[0] >= self._cache_for:
                self._cached = now, self._overall(self._run_checks(loop))
            return self._cached[1]
        finally:
            if locked:
                lock.release()

    def _overall(self, results: Mapping[str, str]) -> ReadinessResult:
        failed = {name for name, result in results.items() if result != "ok"}
        status = "unavailable" if failed & self._required else "degraded" if failed else "ok"
        return ReadinessResult(status, results)

    def _run_checks(self, loop: asyncio.AbstractEventLoop | None) -> dict[str, str]:
        # One deadline for all checks: orchestrators give up after about a second, however many checks there are.
        deadline = self._clock.monotonic() + self._timeout
        for name, check in self._checks.items():
            self._start(name, check, loop)
        results: dict[str, str] = {}
        for name in self._checks:
            result = self._runs[name].within(max(0.0, deadline - self._clock.monotonic()))
            if result != "ok" and hooks.observers:
                hooks.emit(BackendFailed(name, "health", result))
            results[name] = result if result in ("ok", "timeout") else "failed"
        return results

    def _start(self, name: str, check: Check, loop: asyncio.AbstractEventLoop | None) -> None:
        if name in self._runs and self._runs[name].is_alive():
            return  # while a check hangs, no second thread is started for it
        self._runs[name] = run = _Run(name, check, loop, self._timeout)
        try:
            run.start()
        except RuntimeError as error:  # no more threads available; the next run tries again
            run.result = type(error).__name__


class _Run(threading.Thread):
    """One run of a check in a thread; only the name of the exception type is kept."""

    def __init__(
        self, name: str, check: Check, loop: asyncio.AbstractEventLoop | None, timeout: float
    ) -> None:
        super().__init__(name=f"mks-health-{name}", daemon=True)
        self._check = check
        self._loop = loop
        self._timeout = timeout
        self.result = ""

    def run(self) -> None:
        try:
            self.result = "failed" if self._checked() is False else "ok"
        except Exception as error:  # noqa: BLE001 - any exception of a check means that it failed
            self.result = type(error).__name__

    def _checked(self) -> object:
        found = self._check()
        if self._loop is None or not hasattr(found, "__await__"):
            return require_sync_result(found)
        import asyncio

        async def on_loop() -> object:
            result: object = await cast("Awaitable[object]", found)
            return result

        running = asyncio.run_coroutine_threadsafe(on_loop(), self._loop)
        try:
            return running.result(self._timeout + _OVERTIME)
        finally:
            running.cancel()

    def within(self, timeout: float) -> str:
        """Return the result, or ``timeout`` if the check does not finish in time."""
        if self.ident is not None:
            self.join(timeout)
        return "timeout" if self.is_alive() else self.result


def _named(checks: Checks, parameter: str) -> dict[str, Check]:
    try:
        named: dict[str, Check] = dict(checks)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{parameter} must map names to callables", parameter=parameter) from None
    for name, check in named.items():
        if not isinstance(name, str) or not name or not callable(check):
            raise ConfigurationError(f"{parameter} must map names to callables", parameter=parameter)
    return named
