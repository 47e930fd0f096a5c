"""The bookkeeping around one call to a server: budget, breaker, tries, and the one typed error.

It sends nothing itself; a client asks ``begin`` before a call and reports what came of it, so the same rules hold
for synchronous and asynchronous clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mks_hardening._core import hooks
from mks_hardening._core.backend_events import BackendFailed
from mks_hardening._core.breaker import CircuitBreaker
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.deadline import current_budget
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["CallGuard", "GuardedCall"]

_MAX_TRIES: Final = 3
# Worth a second try at once: the connection was at fault, not the server's pace.
_RETRYABLE: Final = frozenset({"reset", "refused", "readonly", "protocol"})
# The command certainly had no effect, so even what must not be done twice may be tried again.
_NOT_DONE: Final = frozenset({"refused", "readonly"})


class CallGuard:
    """Rules for all calls to one endpoint.

    Args:
        backend: name for errors and events.
        budget: seconds one call may take; inside a request all calls together share the request's budget.
        breaker: the endpoint's breaker.
        reason_of: what an exception means, or ``None`` when it is not the endpoint's.
    """

    __slots__ = ("backend", "breaker", "budget", "closed", "reason_of")

    def __init__(
        self,
        backend: str,
        *,
        budget: float,
        breaker: CircuitBreaker,
        reason_of: Callable[[BaseException], str | None],
    ) -> None:
        self.backend = backend
        self.budget = budget
        self.breaker = breaker
        self.reason_of = reason_of
        self.closed = False

    def begin(self, operation: str, *, idempotent: bool) -> GuardedCall:
        """Start one call.

        Raises:
            BackendUnavailableError: closed, breaker open, or no budget left; nothing was sent.
        """
        if self.closed:
            raise BackendUnavailableError(self.backend, "closed", operation=operation, sent=False)
        self.breaker.check(operation)
        request = current_budget()
        allowed = self.budget if request is None else min(self.budget, request.remaining)
        if allowed <= 0:
            raise BackendUnavailableError(self.backend, "budget", operation=operation, sent=False)
        return GuardedCall(self, operation, allowed, idempotent=idempotent)


class GuardedCall:
    """One call with its deadline and its tries."""

    __slots__ = ("_guard", "_idempotent", "_operation", "_start", "_tries", "deadline")

    def __init__(self, guard: CallGuard, operation: str, allowed: float, *, idempotent: bool) -> None:
        self._guard = guard
        self._operation = operation
        self._idempotent = idempotent
        self._tries = 1
        self._start = SYSTEM_CLOCK.monotonic()
        self.deadline = self._start + allowed

    def succeeded(self) -> None:
        """An answer came, be it an answer that refuses the command."""
        self._guard.breaker.succeeded(self._spent())

    def failed(self, error: Exception) -> str:
        """Return the reason when the call may be tried again at once.

        Raises:
            BackendUnavailableError: it may not.
            Exception: ``error`` itself, when it is not the endpoint's.
        """
        guard = self._guard
        reason = guard.reason_of(error)
        if reason is None:
            self.succeeded()
            raise error
        if self._may_retry(reason):
            self._tries += 1
            return reason
        self._spent()
        guard.breaker.failed(reason)
        if hooks.observers:
            hooks.emit(BackendFailed(guard.backend, self._operation, reason))
        raise BackendUnavailableError(
            guard.backend, reason, operation=self._operation, sent=reason not in _NOT_DONE
        ) from error

    def _may_retry(self, reason: str) -> bool:
        if self._tries >= _MAX_TRIES or SYSTEM_CLOCK.monotonic() >= self.deadline:
            return False
        return reason in _RETRYABLE and (self._idempotent or reason in _NOT_DONE)

    def _spent(self) -> float:
        spent = SYSTEM_CLOCK.monotonic() - self._start
        request = current_budget()
        if request is not None:
            request.spend(spent)
        return spent
