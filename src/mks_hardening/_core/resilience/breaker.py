"""A circuit breaker: stop asking a server that does not answer, and notice when it does again.

``BreakerState`` is the pure machine over values and times. ``CircuitBreaker`` adds the lock, the events and, where
a ``probe`` is given, a background thread that asks the server at most once a second, so that no request ever pays
for finding out. Every call that finds it open makes sure that this thread lives: one that could not start, or that
was killed, is replaced.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening._core.resilience.backend_events import BreakerChanged
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import Clock

__all__ = ["GROUP_RECOVERY_TIMEOUT", "RECOVERY_TIMEOUT", "BreakerState", "CircuitBreaker", "Phase"]

RECOVERY_TIMEOUT: Final = 1.0
"""Seconds between two probes of one server."""
GROUP_RECOVERY_TIMEOUT: Final = 0.2
"""The same for a group, which is back within moments when it fails over, and which it is cheap to ask."""

Phase = Literal["closed", "open", "half_open"]

# One of these says enough: the server is not there, or will refuse everything until somebody acts.
_FATAL: Final = frozenset({"refused", "auth", "loading", "protocol", "clients", "certificate", "tls"})
# These are answers of a living server about one command.
_ANSWERS: Final = frozenset({"readonly", "oom", "denied", "uncovered", "moved", "error"})
# These are our own doing and say nothing about the server.
_OURS: Final = frozenset({"budget", "pool", "open", "closed"})

_TRIAL_LAPSES: Final = 10.0
"""Seconds after which a trial that was never reported (its thread was killed) makes room for another."""


class BreakerState:
    """Closed, open, half-open over plain times; knows nothing of threads.

    Args:
        failure_threshold: hiccups (time-outs, resets, slow answers) one after another that open it; refusals open
            it at once.
        recovery_timeout: seconds between two trials while it is open.
    """

    __slots__ = (
        "_closed_at", "_hiccup_ended", "_hiccups", "_next_trial", "_opened_at", "_recovery", "_threshold",
        "_trial_lapses", "phase", "reason",
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
        self.phase: Phase = "closed"
        self.reason = ""

    def trial_due(self, now: float) -> float:
        """Seconds until the next trial may start; zero or less when it may start now."""
        return self._next_trial - now

    def begin_trial(self, now: float) -> bool:
        """Take the one trial that is allowed now, or be told that it is not."""
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
        """Whether nothing better was heard since a call had no answer."""
        return self.phase != "closed" or self._hiccups > 0

    def begin_check(self, now: float) -> bool:
        """Take a trial beside the calls of others, who do not know better yet; not more often than other trials."""
        if self.phase != "closed" or not self._hiccups or now < self._next_trial:
            return False
        self._next_trial = now + self._recovery
        return True

    def succeeded(self, now: float, *, began: float = float("inf")) -> None:
        """An answer came, to a call that began then."""
        # One that was under way while another call found the server gone proves nothing about now. Without this, an
        # outage under many threads was told several times, going and coming.
        if self.phase != "closed" and began <= self._opened_at:
            return
        if self.phase != "closed":
            self._closed_at = now
        self._hiccups = 0
        self.phase = "closed"
        self.reason = ""

    def failed(self, now: float, reason: str, *, began: float) -> None:
        """No usable answer, for a ``reason`` of ``BackendUnavailableError``, to a call that began then."""
        if reason in _ANSWERS:
            self._answered(now)
        elif reason in _OURS:
            self.abandoned()
        elif self.phase == "closed" and began < self._closed_at:
            return  # as in succeeded: what it met is the outage that has ended since
        elif self.phase == "half_open" or reason in _FATAL or self._hiccup(now, began):
            if self.phase == "closed":
                self._opened_at = now
                self._next_trial = now + self._recovery
            self.phase = "open"
            self.reason = reason

    def abandoned(self) -> None:
        """A call ended without saying anything about the server; if it was the trial, another may begin in time."""
        if self.phase == "half_open":
            self.phase = "open"

    def _answered(self, now: float) -> None:
        # An answer to a call from before it opened proves nothing about now; only a trial's does.
        if self.phase == "half_open":
            self.succeeded(now)
        elif self.phase == "closed":
            self._hiccups = 0

    def _hiccup(self, now: float, began: float) -> bool:
        # Calls side by side that all time out in one pause of the server are one hiccup.
        if began >= self._hiccup_ended:
            self._hiccups += 1
            self._hiccup_ended = now
        return self._hiccups >= self._threshold


class CircuitBreaker:
    """One endpoint's breaker in this process, safe over threads, reset after a fork.

    Args:
        backend: name for errors, events and the log; no credentials.
        endpoint: where the backend is, without credentials; for events and the log.
        probe: asks the server and raises when it is not well. With it, trials run on a background thread and
            callers are refused until one succeeds; without it, one caller at a time is let through as a trial.
        failure_threshold: see ``BreakerState``.
        recovery_timeout: seconds between trials.
        clock: monotonic clock.

    Attributes:
        doubted: whether nothing better was heard since a call had no answer; see ``in_doubt``.
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
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Start over: what was found out in another process does not count here."""
        # Reentrant: a signal handler or a finalizer may make calls while this thread is inside.
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
        """Return when a call may be tried.

        Raises:
            BackendUnavailableError: the breaker is open (reason ``open``); nothing was sent.
        """
        if self._state.phase == "closed":
            return
        if self._probe is not None:
            self._supervise()
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
        """Whether the last that was heard is that it did not answer, and a probe is finding out more.

        Who can go on without an answer need not spend time on finding out.
        """
        if not self.doubted or self._probe is None:
            return False
        self._supervise()
        return True

    def succeeded(self, *, began: float = float("inf")) -> None:
        """Report an answer, to a call that began then by the breaker's clock, where it may have opened since."""
        state = self._state
        if state.phase == "closed" and not state._hiccups:  # noqa: SLF001 - the usual case, without the lock
            return
        self._report(lambda state, now: state.succeeded(now, began=began))

    def failed(self, reason: str, *, began: float | None = None) -> None:
        """Report that no usable answer came, to a call that began at a time of the breaker's clock."""
        self._report(lambda state, now: state.failed(now, reason, began=now if began is None else began))

    def abandoned(self) -> None:
        """Report a call that says nothing about the server."""
        if self._state.phase == "half_open":
            self._report(lambda state, _now: state.abandoned())

    def retire(self) -> None:
        """Probe no more: nobody uses it."""
        self._probe = None

    def run_probe(self) -> float | None:
        """Run one trial if it is due; seconds until the next, or ``None`` when there is none to come."""
        probe = self._probe
        if probe is not None and (self._begin_trial() or self._begin_check()):
            self._try(probe)
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
                self._supervise()  # first: what follows is foreign code
            self._tell(before, after, reason)

    def _tell(self, before: Phase, after: Phase, reason: str) -> None:
        with suppress(Exception):
            if hooks.observers:
                hooks.emit(BreakerChanged(self.backend, before, after, reason, self.endpoint))
        with suppress(Exception):
            log = logging.getLogger("mks_hardening.breaker")
            name = f"{self.backend} at {self.endpoint}" if self.endpoint else self.backend
            extra = {"backend": self.backend, "endpoint": self.endpoint, "breaker": after}
            if after == "closed":
                log.warning("%s answers again", name, extra=extra)
            else:
                log.error("%s does not answer (%s)", name, reason, extra=extra)

    def _supervise(self) -> None:
        """Make sure that a thread probes; one that cannot start is tried again at the next call."""
        if self._prober is not None and self._prober.is_alive():
            return
        # Not blocking: whoever holds it is starting the thread, perhaps below us in a signal handler, or in a
        # greenlet that waits for the new one.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._prober is None or not self._prober.is_alive():
                thread = threading.Thread(target=self._keep_probing, name="mks-breaker-probe", daemon=True)
                thread.start()
                self._prober = thread
        except RuntimeError:  # no thread to be had
            self._prober = None
        finally:
            self._starting.release()

    def _keep_probing(self) -> None:
        pause = threading.Event()
        while (delay := self.run_probe()) is not None:
            pause.wait(max(0.001, min(delay, 1.0)))

    def _try(self, probe: Callable[[], object]) -> None:
        began = self.clock.monotonic()
        try:
            probe()
        except BackendUnavailableError as error:
            self.failed(error.reason, began=began)
        except Exception:  # noqa: BLE001 - whatever else a probe raises means: not well
            self.failed("timeout", began=began)
        except BaseException:  # the thread is being killed
            self.abandoned()
            raise
        else:
            self.succeeded()
