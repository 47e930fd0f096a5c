"""A circuit breaker: stop asking a server that does not answer, and notice when it does again.

``BreakerState`` is the pure machine over values and times. ``CircuitBreaker`` adds the lock, the events and, where
a ``probe`` is given, the background thread that asks the server at most once a second, so that no request ever
pays for finding out.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Final, Literal
from weakref import WeakSet

from mks_hardening._core import hooks
from mks_hardening._core.backend_events import BreakerChanged
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import Clock

__all__ = ["BreakerState", "CircuitBreaker", "Phase"]

Phase = Literal["closed", "open", "half_open"]

# One of these says enough: the server is not there, or will refuse everything until somebody acts.
_FATAL: Final = frozenset({"refused", "auth", "loading", "protocol", "clients"})
# These are answers of a living server about one command.
_HARMLESS: Final = frozenset({"readonly", "oom", "error", "budget", "open", "closed"})


class BreakerState:
    """Closed, open, half-open over plain times; knows nothing of threads.

    Args:
        failure_threshold: hiccups (time-outs, slow answers) in a row that open it; refusals open it at once.
        recovery_timeout: seconds between two trials while it is open.
        slow_after: seconds from which an answer counts as a hiccup; ``None`` for never.
    """

    __slots__ = ("_hiccups", "_next_trial", "_recovery", "_slow_after", "_threshold", "phase", "reason")

    def __init__(
        self, *, failure_threshold: int = 3, recovery_timeout: float = 1.0, slow_after: float | None = None
    ) -> None:
        self._threshold = failure_threshold
        self._recovery = recovery_timeout
        self._slow_after = slow_after
        self._hiccups = 0
        self._next_trial = 0.0
        self.phase: Phase = "closed"
        self.reason = ""

    def trial_due(self, now: float) -> float:
        """Seconds until the next trial may start; zero or less when it may start now."""
        return self._next_trial - now

    def begin_trial(self, now: float) -> bool:
        """Take the one trial that is allowed now, or be told that it is not."""
        if self.phase != "open" or now < self._next_trial:
            return False
        self.phase = "half_open"
        self._next_trial = now + self._recovery
        return True

    def succeeded(self, now: float, duration: float) -> None:
        """An answer came after ``duration`` seconds."""
        if self._slow_after is not None and duration >= self._slow_after:
            self.failed(now, "slow")
            return
        self._hiccups = 0
        self.phase = "closed"
        self.reason = ""

    def failed(self, now: float, reason: str) -> None:
        """No usable answer, for a ``reason`` of ``BackendUnavailableError``."""
        if reason in _HARMLESS:
            if self.phase == "half_open":
                self.succeeded(now, 0.0)
            return
        self._hiccups += 1
        if self.phase == "half_open" or reason in _FATAL or self._hiccups >= self._threshold:
            if self.phase == "closed":
                self._next_trial = now + self._recovery
            self.phase = "open"
            self.reason = reason


class CircuitBreaker:
    """One endpoint's breaker in this process, safe over threads, reset after a fork.

    Args:
        backend: name for errors, events and the log; no credentials.
        probe: asks the server and raises when it is not well. With it, trials run on a background thread and
            callers are refused until one succeeds; without it, one caller at a time is let through as a trial.
        failure_threshold: see ``BreakerState``.
        recovery_timeout: seconds between trials.
        slow_after: see ``BreakerState``.
        clock: monotonic clock.
    """

    def __init__(
        self,
        backend: str,
        *,
        probe: Callable[[], object] | None = None,
        failure_threshold: int = 3,
        recovery_timeout: float = 1.0,
        slow_after: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.backend = backend
        self._probe = probe
        self._clock = clock
        self._rules = (failure_threshold, recovery_timeout, slow_after)
        self._reset()
        _remember(self)

    @property
    def phase(self) -> Phase:
        """``closed``, ``open`` or ``half_open``."""
        return self._state.phase

    def check(self, operation: str = "") -> None:
        """Return when a call may be tried.

        Raises:
            BackendUnavailableError: the breaker is open (reason ``open``); nothing was sent.
        """
        if self._state.phase == "closed":
            return
        if self._probe is None and self._begin_trial():
            return
        raise BackendUnavailableError(
            self.backend,
            "open",
            operation=operation,
            sent=False,
            retry_after=max(0.0, self._state.trial_due(self._clock.monotonic())),
        )

    def succeeded(self, duration: float = 0.0) -> None:
        """Report an answer that took ``duration`` seconds."""
        self._report(lambda state, now: state.succeeded(now, duration))

    def failed(self, reason: str) -> None:
        """Report that no usable answer came."""
        self._report(lambda state, now: state.failed(now, reason))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        threshold, recovery, slow_after = self._rules
        self._state = BreakerState(
            failure_threshold=threshold, recovery_timeout=recovery, slow_after=slow_after
        )

    def _begin_trial(self) -> bool:
        with self._lock:
            return self._state.begin_trial(self._clock.monotonic())

    def _report(self, change: Callable[[BreakerState, float], None]) -> None:
        with self._lock:
            before = self._state.phase
            change(self._state, self._clock.monotonic())
            after, reason = self._state.phase, self._state.reason
        if (before == "closed") != (after == "closed"):
            self._tell(before, after, reason)

    def _tell(self, before: Phase, after: Phase, reason: str) -> None:
        if hooks.observers:
            hooks.emit(BreakerChanged(self.backend, before, after, reason))
        log = logging.getLogger("mks_hardening.breaker")
        if after == "closed":
            log.warning("%s answers again", self.backend, extra={"backend": self.backend, "breaker": after})
            return
        log.error(
            "%s does not answer (%s)", self.backend, reason, extra={"backend": self.backend, "breaker": after}
        )
        if self._probe is not None:
            _prober.watch(self)

    def retire(self) -> None:
        """Probe no more: the client is closed."""
        self._probe = None

    def run_probe(self) -> float | None:
        """Run one trial if it is due; seconds until the next, or ``None`` when there is none to come."""
        probe = self._probe
        if probe is not None and self._begin_trial():
            self._try(probe)
        return max(0.0, self._state.trial_due(self._clock.monotonic())) if self.wants_probing else None

    @property
    def wants_probing(self) -> bool:
        """Whether it is open and has a probe."""
        return self._probe is not None and self._state.phase != "closed"

    def _try(self, probe: Callable[[], object]) -> None:
        start = self._clock.monotonic()
        try:
            probe()
        except BackendUnavailableError as error:
            self.failed(error.reason)
        except Exception:  # noqa: BLE001 - whatever else a probe raises means: not well
            self.failed("timeout")
        else:
            self.succeeded(self._clock.monotonic() - start)


class _Prober:
    """One daemon thread a process, alive only while a breaker with a probe is open."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._watched: list[CircuitBreaker] = []
        self._thread: threading.Thread | None = None

    def watch(self, breaker: CircuitBreaker) -> None:
        with self._lock:
            if breaker not in self._watched:
                self._watched.append(breaker)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mks-breaker-probe", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wake = threading.Event()
        while True:
            delays = [delay for breaker in tuple(self._watched) if (delay := breaker.run_probe()) is not None]
            with self._lock:
                self._watched = [breaker for breaker in self._watched if breaker.wants_probing]
                if not self._watched:
                    self._thread = None
                    return
            wake.wait(max(0.001, min([*delays, 1.0])))


_prober: Final = _Prober()
_breakers: WeakSet[CircuitBreaker] = WeakSet()
_fork_armed = False


def _remember(breaker: CircuitBreaker) -> None:
    global _fork_armed  # noqa: PLW0603 - armed once a process
    _breakers.add(breaker)
    if not _fork_armed:
        _fork_armed = True
        os.register_at_fork(after_in_child=_forget_parent)


def _forget_parent() -> None:
    _prober.reset()
    for breaker in list(_breakers):
        breaker._reset()  # noqa: SLF001 - same module
