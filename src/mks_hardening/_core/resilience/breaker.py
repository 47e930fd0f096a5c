"""Circuit breaker: stop calling a server that does not respond, and detect its recovery.

``BreakerState`` is the pure state machine over values and times. ``CircuitBreaker`` adds the lock, the events and,
if a ``probe`` is given, a background thread that probes the server at most once per ``recovery_timeout``, so that
no request pays for the detection. Every call that finds the breaker open checks that this thread is alive: a thread
that could not start, or that was killed, is replaced.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.resilience.backend_events import BreakerChanged
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import Clock

__all__ = ["GROUP_RECOVERY_TIMEOUT", "RECOVERY_TIMEOUT", "BreakerState", "CircuitBreaker", "Phase"]

RECOVERY_TIMEOUT: Final = 1.0
"""Seconds between two probes of one server."""
GROUP_RECOVERY_TIMEOUT: Final = 0.2
"""The same for a sentinel group or cluster, which recovers quickly after a failover and is cheap to probe."""

Phase = Literal["closed", "open", "half_open"]

# One of these opens the breaker: the server is down, or rejects everything until an operator intervenes.
_FATAL: Final = frozenset({"refused", "auth", "loading", "protocol", "clients", "certificate", "tls"})
# Error responses of a working server to a single command.
_ERROR_RESPONSES: Final = frozenset({"readonly", "oom", "denied", "uncovered", "moved", "error"})
# A full disk, full memory, or a replica: reads succeed, so the breaker stays closed, but no write does.
_REJECTED_WRITES: Final = frozenset({"readonly", "oom"})
_BETWEEN_REJECTIONS: Final = 60.0
"""Seconds between two log records about rejected writes. Reads still succeed, so no response shows the end."""
# Caused by this process; they say nothing about the server.
_OWN_FAILURES: Final = frozenset({"budget", "pool", "open", "closed"})

_logger: Final = logging.getLogger("mks_hardening.breaker")
_TRIAL_LAPSES: Final = 10.0
"""Seconds after which a trial without a report (its thread was killed) no longer blocks another trial."""


class BreakerState:
    """State machine of a circuit breaker (closed, open, half-open), without threads or a clock.

    Args:
        failure_threshold: consecutive transient failures (timeouts, resets, slow responses) that open the breaker;
            a fatal failure such as a refused connection opens it at once.
        recovery_timeout: seconds between two trials while the breaker is open.
    """

    __slots__ = (
        "_closed_at", "_hiccup_ended", "_hiccups", "_next_trial", "_opened_at", "_recovery",
        "_rejection_logged_at", "_threshold", "_trial_lapses", "phase", "reason",
    )  # fmt: skip

    def __init__(self, *, failure_threshold: int = 3, recovery_timeout: float = RECOVERY_TIMEOUT) -> None:
        self._threshold = failure_threshold
        self._recovery = recovery_timeout
        self._hiccups = 0
        self._hiccup_ended = float("-inf")
        self._opened_at = float("-inf")
        self._closed_at = float("-inf")
        self._next_trial = 0.0
        self._trial_lapses = 0.0
        self._rejection_logged_at = float("-inf")
        self.phase: Phase = "closed"
        self.reason = ""

    def trial_due(self, now: float) -> float:
        """Return the seconds until the next trial may start; zero or less if it may start now."""
        return self._next_trial - now

    def begin_trial(self, now: float) -> bool:
        """Start the one trial that is allowed now; return whether it may run."""
        if self.phase == "closed" or now < self._next_trial:
            return False
        if self.phase == "half_open" and now < self._trial_lapses:
            return False
        self.phase = "half_open"
        self._next_trial = now + self._recovery
        self._trial_lapses = now + _TRIAL_LAPSES
        return True

    @property
    def in_doubt(self) -> bool:
        """Whether a call has failed since the last response."""
        return self.phase != "closed" or self._hiccups > 0

    def begin_check(self, now: float) -> bool:
        """Start a check while the breaker is closed but in doubt; at most once per ``recovery_timeout``."""
        if self.phase != "closed" or not self._hiccups or now < self._next_trial:
            return False
        self._next_trial = now + self._recovery
        return True

    def succeeded(self, now: float, *, began: float = float("inf")) -> None:
        """Record a response to a call that started at ``began``."""
        # A response to a call that was in flight when another call opened the breaker says nothing about the
        # present. Without this check, an outage under many threads reported several openings and closings.
        if self.phase != "closed" and began <= self._opened_at:
            return
        if self.phase != "closed":
            self._closed_at = now
        self._hiccups = 0
        self.phase = "closed"
        self.reason = ""

    def failed(self, now: float, reason: str, *, began: float) -> None:
        """Record a failure with a ``reason`` of ``BackendUnavailableError``; the call started at ``began``."""
        if reason in _ERROR_RESPONSES:
            self._responded(now)
        elif reason in _OWN_FAILURES:
            self.abandoned()
        elif self.phase == "closed" and began < self._closed_at:
            return  # as in succeeded: this call met an outage that has ended since
        elif self.phase == "half_open" or reason in _FATAL or self._hiccup(now, began):
            if self.phase == "closed":
                self._opened_at = now
                self._next_trial = now + self._recovery
            self.phase = "open"
            self.reason = reason

    def abandoned(self) -> None:
        """Record a call that says nothing about the server; if it was the trial, another may follow on schedule."""
        if self.phase == "half_open":
            self.phase = "open"

    def logs_rejection(self, now: float, reason: str) -> bool:
        """Return whether to log this failure: the first rejected write, and then one a minute."""
        if reason not in _REJECTED_WRITES or now - self._rejection_logged_at < _BETWEEN_REJECTIONS:
            return False
        self._rejection_logged_at = now
        return True

    def _responded(self, now: float) -> None:
        # A response to a call from before the breaker opened says nothing about the present; only a trial does.
        if self.phase == "half_open":
            self.succeeded(now)
        elif self.phase == "closed":
            self._hiccups = 0

    def _hiccup(self, now: float, began: float) -> bool:
        # Concurrent calls that all time out in one pause of the server count as one failure.
        if began >= self._hiccup_ended:
            self._hiccups += 1
            self._hiccup_ended = now
        return self._hiccups >= self._threshold


class CircuitBreaker:
    """Circuit breaker of one endpoint in this process; thread-safe, reset after a fork.

    Args:
        backend: name for errors, events and the log, without credentials.
        endpoint: address of the backend, without credentials, for events and the log.
        probe: contacts the server and raises if it is unhealthy. With a probe, trials run on a background thread
            and callers are rejected until one succeeds; without a probe, one caller at a time may call as a
            trial.
        failure_threshold: see ``BreakerState``.
        recovery_timeout: seconds between trials.
        clock: monotonic clock.

    Attributes:
        doubted: whether a call has failed since the last response. Otherwise the breaker is closed, and ``check``
            and ``succeeded`` have nothing to do.
    """

    def __init__(
        self,
        backend: str,
        *,
        endpoint: str = "",
        probe: Callable[[], object] | None = None,
        failure_threshold: int = 3,
        recovery_timeout: float = RECOVERY_TIMEOUT,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.backend = backend
        self.endpoint = endpoint
        self.clock = clock
        self._probe = probe
        self._rules = (failure_threshold, recovery_timeout)
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the state: what another process observed does not apply here."""
        # Reentrant: a signal handler or a finalizer may make calls while this thread holds the lock.
        self._lock = threading.RLock()
        self._starting = threading.Lock()
        self._prober: threading.Thread | None = None
        self.doubted = False
        threshold, recovery = self._rules
        self._state = BreakerState(failure_threshold=threshold, recovery_timeout=recovery)

    @property
    def phase(self) -> Phase:
        """``closed``, ``open`` or ``half_open``."""
        return self._state.phase

    def check(self, operation: str = "") -> None:
        """Return if a call may be sent.

        Raises:
            BackendUnavailableError: the breaker is open (reason ``open``); nothing was sent.
        """
        if self._state.phase == "closed":
            return
        if self._probe is not None:
            self._ensure_prober()
        elif self._begin_trial():
            return
        raise BackendUnavailableError(
            self.backend,
            "open",
            operation=operation,
            sent=False,
            retry_after=max(0.0, self._state.trial_due(self.clock.monotonic())),
        )

    def in_doubt(self) -> bool:
        """Whether a call has failed since the last response and a probe is checking the server.

        A caller that can do without a response skips the call instead of waiting for the probe's result.
        """
        if not self.doubted or self._probe is None:
            return False
        self._ensure_prober()
        return True

    def succeeded(self, *, began: float = float("inf")) -> None:
        """Report a response to a call that started at ``began`` by the breaker's clock."""
        if self.doubted:
            self._report(lambda state, now: state.succeeded(now, began=began))

    def failed(self, reason: str, *, began: float | None = None) -> None:
        """Report a failed call that started at ``began`` by the breaker's clock (default: now)."""
        self._report(lambda state, now: state.failed(now, reason, began=now if began is None else began))
        with self._lock:
            is_logged = self._state.logs_rejection(self.clock.monotonic(), reason)
        if is_logged:
            with suppress(Exception):
                extra = {"backend": self.backend, "endpoint": self.endpoint}
                _logger.error("%s rejects writes (%s)", self._name, reason, extra=extra)

    def abandoned(self) -> None:
        """Report a call that says nothing about the server."""
        if self._state.phase == "half_open":
            self._report(lambda state, _now: state.abandoned())

    def retire(self) -> None:
        """Stop probing: the endpoint is no longer used."""
        self._probe = None

    def run_probe(self) -> float | None:
        """Run one trial if it is due; return the seconds until the next, or ``None`` if no more are needed."""
        probe = self._probe
        if probe is not None and (self._begin_trial() or self._begin_check()):
            self._probe_once(probe)
        if self._probe is None or not self._state.in_doubt:
            return None
        return max(0.0, self._state.trial_due(self.clock.monotonic()))

    def _begin_trial(self) -> bool:
        with self._lock:
            return self._state.begin_trial(self.clock.monotonic())

    def _begin_check(self) -> bool:
        with self._lock:
            return self._state.begin_check(self.clock.monotonic())

    def _report(self, change: Callable[[BreakerState, float], None]) -> None:
        with self._lock:
            before = self._state.phase
            change(self._state, self.clock.monotonic())
            after, reason = self._state.phase, self._state.reason
            self.doubted = self._state.in_doubt
        if (before == "closed") != (after == "closed"):
            if after != "closed" and self._probe is not None:
                self._ensure_prober()  # first: observers and log handlers are foreign code
            self._emit_change(before, after, reason)

    def _emit_change(self, before: Phase, after: Phase, reason: str) -> None:
        with suppress(Exception):
            if hooks.observers:
                hooks.emit(BreakerChanged(self.backend, before, after, reason, self.endpoint))
        with suppress(Exception):
            extra = {"backend": self.backend, "endpoint": self.endpoint, "breaker": after}
            if after == "closed":
                _logger.warning("%s is available again", self._name, extra=extra)
            else:
                _logger.error("%s is unavailable (%s)", self._name, reason, extra=extra)

    @property
    def _name(self) -> str:
        return f"{self.backend} at {self.endpoint}" if self.endpoint else self.backend

    def _ensure_prober(self) -> None:
        """Ensure that a probe thread is alive; if it cannot start, the next call tries again."""
        if self._prober is not None and self._prober.is_alive():
            return
        # Non-blocking: the holder is starting the thread, and may be a frame below us in a signal handler, or a
        # greenlet that waits for the new thread.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._prober is None or not self._prober.is_alive():
                thread = threading.Thread(target=self._keep_probing, name="mks-breaker-probe", daemon=True)
                thread.start()
                self._prober = thread
        except RuntimeError:  # no more threads available
            self._prober = None
        finally:
            self._starting.release()

    def _keep_probing(self) -> None:
        pause = threading.Event()
        while (delay := self.run_probe()) is not None:
            pause.wait(max(0.001, min(delay, 1.0)))

    def _probe_once(self, probe: Callable[[], object]) -> None:
        began = self.clock.monotonic()
        try:
            probe()
        except BackendUnavailableError as error:
            self.failed(error.reason, began=began)
        except Exception:  # noqa: BLE001 - any other exception of a probe means that the server is unhealthy
            self.failed("timeout", began=began)
        except BaseException:  # the thread is being killed
            self.abandoned()
            raise
        else:
            self.succeeded()
