"""Bookkeeping around one backend call: budget, breaker, retries and the one typed error.

It sends nothing itself. A client calls ``begin`` before a call and reports the outcome, so that the same rules
apply to synchronous and asynchronous clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.resilience.backend_events import BackendFailed
from mks_hardening._core.resilience.breaker import CircuitBreaker
from mks_hardening._core.resilience.budget import Budget, current_budget
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.resilience.deadline_socket import CallDeadline
    from mks_hardening._core.resilience.loop_time import LoopTime

__all__ = ["CallGuard", "GuardedCall"]

_MAX_TRIES: Final = 3
# Worth an immediate retry: the connection failed, not the server's speed.
_RETRYABLE: Final = frozenset({"reset", "refused", "readonly", "protocol", "tls", "uncovered"})
# The command certainly had no effect, so even a non-idempotent one may be retried.
_NOT_DONE: Final = frozenset({"refused", "readonly", "uncovered", "pool", "certificate", "tls"})
# Failures that count only if the server had enough time to respond.
_TIMED: Final = frozenset({"timeout", "slow"})


def _none() -> float:
    return 0.0


def _no_detail(_error: BaseException) -> str:
    return ""


class CallGuard:
    """Rules for all calls of one client to one endpoint.

    Args:
        backend: name for errors and events.
        budget: seconds that one call may take; inside a request, all calls share the request's budget.
        breaker: breaker of the endpoint.
        reason_of: maps an exception to a reason, or to ``None`` if the endpoint did not cause it.
        detail_of: returns the detail of an exception for the error message.
        fair_share: returns the seconds that a server must have had before a timeout counts against it.
        paced: whether the client enforces deadlines itself; if not, a late response counts as slow.
    """

    __slots__ = ("backend", "breaker", "budget", "closed", "detail_of", "fair_share", "paced", "reason_of")

    def __init__(
        self,
        backend: str,
        *,
        budget: float,
        breaker: CircuitBreaker,
        reason_of: Callable[[BaseException], str | None],
        detail_of: Callable[[BaseException], str] = _no_detail,
        fair_share: Callable[[], float] = _none,
        paced: bool = True,
    ) -> None:
        self.backend = backend
        self.budget = budget
        self.breaker = breaker
        self.reason_of = reason_of
        self.detail_of = detail_of
        self.fair_share = fair_share
        self.paced = paced
        self.closed = False

    def begin(
        self,
        operation: str,
        *,
        idempotent: bool,
        own_time: CallDeadline | LoopTime | None = None,
        shard: Callable[[], CircuitBreaker | None] | None = None,
    ) -> GuardedCall:
        """Start one call; ``GuardedCall.end`` must follow.

        Args:
            operation: name of the operation, for errors and events.
            idempotent: whether running it twice is harmless.
            own_time: counter of the time that this process takes, which is not charged.
            shard: returns the breaker of the shard that the call goes to; raises if that is open.

        Raises:
            BackendUnavailableError: the client is closed, the breaker is open, or no budget is left; nothing was
                sent.
        """
        if self.closed:
            raise BackendUnavailableError(self.backend, "closed", operation=operation, sent=False)
        if self.breaker.doubted:
            self.breaker.check(operation)
        request = current_budget()
        allowed = self.budget
        if request is not None:
            lost = None if own_time is None else own_time.lost()
            allowed = min(allowed, request.left(SYSTEM_CLOCK.monotonic(), lost=lost))
        if allowed <= 0:
            self.breaker.abandoned()
            raise BackendUnavailableError(self.backend, "budget", operation=operation, sent=False)
        return GuardedCall(
            self, operation, allowed, request, own_time, idempotent=idempotent, shard=shard and shard()
        )


class GuardedCall:
    """One call with its deadline and its retries."""

    __slots__ = (
        "_began",
        "_deadline",
        "_guard",
        "_idempotent",
        "_lost",
        "_operation",
        "_own_time",
        "_reported",
        "_request",
        "_sent",
        "_shard",
        "_tries",
        "_waited_for_pool",
        "allowed",
    )  # fmt: skip

    def __init__(
        self,
        guard: CallGuard,
        operation: str,
        allowed: float,
        request: Budget | None,
        own_time: CallDeadline | LoopTime | None,
        *,
        idempotent: bool,
        shard: CircuitBreaker | None = None,
    ) -> None:
        self._guard = guard
        self._shard = shard
        self._operation = operation
        self._idempotent = idempotent
        self._request = request
        self._tries = 1
        self._reported = False
        self._sent = False
        self._waited_for_pool = False
        self._began = guard.breaker.clock.monotonic()
        self.allowed = allowed
        now = SYSTEM_CLOCK.monotonic()
        self._deadline = now + allowed
        self._own_time = own_time
        if own_time is not None:
            own_time.enter(allowed)
            self._lost = own_time.lost()
        if request is not None:
            request.begin(self, now, lost=None if own_time is None else self._lost)

    @property
    def deadline(self) -> float:
        """Monotonic time at which the call must end, extended by the time that this process has taken."""
        if self._own_time is None:
            return self._deadline
        return self._deadline + self._own_time.lost() - self._lost

    def succeeded(self) -> None:
        """Record a response, even one that rejects the command."""
        self._reported = True
        if self._guard.paced or SYSTEM_CLOCK.monotonic() < self._deadline:
            breaker, shard = self._guard.breaker, self._shard
            if breaker.doubted:
                breaker.succeeded(began=self._began)
            if shard is not None and shard.doubted:
                shard.succeeded(began=self._began)
        else:
            self._count_failure("slow", whole=True)

    def failed(self, error: Exception, *, whole: bool = False) -> str:
        """Record an error; return the reason if the call may be retried at once.

        Args:
            error: exception of the client.
            whole: whether the error concerns the endpoint as a whole, whatever shard the call went to.

        Raises:
            BackendUnavailableError: the call may not be retried, or the client was closed during the call.
            Exception: ``error`` itself, if the endpoint did not cause it.
        """
        guard = self._guard
        reason = guard.reason_of(error)
        if guard.closed:
            # ``close`` disconnects connections in use, which redis-py reports in many ways (as a ``ValueError``
            # about a socket that is ``None``), and a retry would connect again.
            sent = self._sent or reason not in _NOT_DONE
            raise BackendUnavailableError(
                guard.backend, "closed", operation=self._operation, sent=sent
            ) from error
        if reason is None:
            raise error
        if whole and SYSTEM_CLOCK.monotonic() >= self.deadline:
            # Nothing else was reached for lack of time, which proves no more than a timeout.
            whole, reason = False, "timeout"
        self._sent = self._sent or reason not in _NOT_DONE  # by this attempt or an earlier one
        if self._may_retry(reason):
            return reason
        self._reported = True
        self._count_failure(reason, whole=whole)
        if hooks.observers:
            hooks.emit(BackendFailed(guard.backend, self._operation, reason, guard.breaker.endpoint))
        raise BackendUnavailableError(
            guard.backend, reason, operation=self._operation, sent=self._sent, detail=guard.detail_of(error)
        ) from error

    def end(self) -> None:
        """Finish the bookkeeping, however the call ended."""
        if not self._reported:  # foreign exception, cancelled or killed
            self._guard.breaker.abandoned()
        lost = None
        if self._own_time is not None:
            lost = self._own_time.lost()
            self._own_time.leave()
        if self._request is not None:
            self._request.end(self, SYSTEM_CLOCK.monotonic(), lost=lost)

    def _count_failure(self, reason: str, *, whole: bool) -> None:
        breaker = self._guard.breaker
        if self._shard is not None and not whole:
            breaker.abandoned()
            breaker = self._shard
        if reason == "tls" and SYSTEM_CLOCK.monotonic() >= self.deadline:
            # An unanswered handshake: the server may also be frozen, so a single one must not open the breaker.
            reason = "timeout"
        if reason in _TIMED and (self._waited_for_pool or self.allowed < self._guard.fair_share()):
            breaker.abandoned()
        else:
            breaker.failed(reason, began=self._began)

    def _may_retry(self, reason: str) -> bool:
        if SYSTEM_CLOCK.monotonic() >= self.deadline:
            return False
        if reason == "pool":  # until a connection is free; the server then has less time
            self._waited_for_pool = True
            return True
        self._tries += 1
        return (
            self._tries <= _MAX_TRIES and reason in _RETRYABLE and (self._idempotent or reason in _NOT_DONE)
        )
