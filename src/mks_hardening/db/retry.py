"""Retry of transactions that fail because of a conflict with another transaction or a lost connection."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from inspect import isawaitable, iscoroutine
from random import SystemRandom
from typing import Any, Final, ParamSpec, TypeVar, cast

from mks_hardening._core.checks import boolean, whole_number
from mks_hardening._core.checks import function as check_function
from mks_hardening._core.durations import seconds
from mks_hardening.db._function_kind import is_async, refuse_generators
from mks_hardening.db._transaction_failure import (
    TransactionFailure,
    failure_of,
    is_in_aborted_transaction,
)
from mks_hardening.db.watch._attempt import attempt

__all__ = ["retry_on_serialization_failure"]

P = ParamSpec("P")
R = TypeVar("R")

_OUTCOME_UNKNOWN: Final = (
    "The connection was lost during COMMIT, or it is unknown when: the transaction may have been committed. It is "
    "repeated only if the function is declared with retry_on_serialization_failure(idempotent=True)."
)

_random: Final = SystemRandom()  # a seeded generator would produce the same delays in every forked worker


class _Repetition:
    """Decision after each failed call of one retried function.

    Args:
        attempts: maximum number of calls.
        idempotent: whether the function may run again if its transaction may have been committed.
    """

    def __init__(self, attempts: int, *, idempotent: bool) -> None:
        self._attempts = attempts
        self._idempotent = idempotent
        # Handled by the caller already; the context of every later error.
        self._handled = sys.exc_info()[1]
        self._previous: Exception | None = None

    def repeats(self, error: Exception, number: int) -> bool:
        """Whether to call the function again; raises an earlier error if that is the one that the caller needs."""
        previous, self._previous = self._previous, None
        if previous is not None and is_in_aborted_transaction(error, handled=self._handled):
            # The transaction belongs to the caller, whose decorator has to learn why it failed.
            raise previous
        if number == self._attempts - 1 or not self._is_repeatable(error):
            return False
        self._previous = error
        return True

    def end(self) -> None:
        """Release the last error after a successful call; it refers to the frame that refers to this object."""
        self._previous = None

    def _is_repeatable(self, error: Exception) -> bool:
        failure = failure_of(error, handled=self._handled)
        if failure is not TransactionFailure.OUTCOME_UNKNOWN:
            return failure is not TransactionFailure.OTHER
        if not self._idempotent and _OUTCOME_UNKNOWN not in getattr(error, "__notes__", ()):
            error.add_note(_OUTCOME_UNKNOWN)
        return self._idempotent


def retry_on_serialization_failure(
    *,
    attempts: int = 5,
    backoff: float | timedelta = 0.02,
    backoff_max: float | timedelta = 1.0,
    idempotent: bool = False,
    sleep: Callable[[float], object] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function or coroutine function that opens, runs and commits a whole transaction.

    After a serialization failure, a deadlock or SQLite's "database is locked" the function is called again, after a
    random delay whose upper bound starts at ``backoff`` and doubles each time; the last error is raised unchanged.
    The function must have no side effects outside its transaction. The failure may also be the cause or context of
    another error, or a member of an exception group. ``watch_queries`` and ``query_budget`` count only the last
    call.

    The function is also called again if a connection of a ``hardened_engine`` was lost before COMMIT, because the
    server then rolls the transaction back. If the connection was lost during COMMIT, the transaction may have been
    committed; the error is then raised with a note that says so, unless the function is ``idempotent``. The same
    applies to statements under AUTOCOMMIT and to other engines, for which it is unknown when the connection was
    lost. A server that refuses new connections causes no retry.

    A function that is called inside a transaction of its caller cannot repeat that transaction. If the transaction
    has failed, the first error is raised, so that a decorator of the caller can repeat all of it.

    Args:
        attempts: maximum number of calls.
        backoff: upper bound of the first delay in seconds.
        backoff_max: upper bound of every delay in seconds.
        idempotent: whether running the function again after its transaction was committed has no further effect,
            for example because it inserts under a key of the request with ON CONFLICT DO NOTHING.
        sleep: function that waits; for a coroutine function it may return an awaitable.

    Raises:
        ConfigurationError: a parameter is invalid, or the function is a generator function, whose body runs only
            after the call.
    """
    whole_number(attempts, parameter="attempts", minimum=1)
    first = seconds(backoff, parameter="backoff")
    longest = seconds(backoff_max, parameter="backoff_max")
    boolean(idempotent, parameter="idempotent")
    if sleep is not None:
        check_function(sleep, parameter="sleep", may_be_async=True)

    def wait_before(attempt: int) -> float:
        # Starts at 0 ("full jitter"), so that transactions that collided do not collide again.
        return _random.uniform(0, min(longest, first * 2**attempt))

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        refuse_generators(function)

        def retrying(*args: P.args, **kwargs: P.kwargs) -> R:
            decision = _Repetition(attempts, idempotent=idempotent)
            for number in range(attempts):
                with attempt() as this:
                    try:
                        result = function(*args, **kwargs)
                    except Exception as error:
                        if not decision.repeats(error, number):
                            raise
                        this.is_repeated = True
                    else:
                        decision.end()
                        # A plain function that wraps a coroutine function: nothing has run yet.
                        return (
                            cast(R, awaited(function, args, kwargs, result))
                            if iscoroutine(result)
                            else result
                        )
                (sleep or time.sleep)(wait_before(number))
            raise AssertionError("there is at least one attempt")

        async def later(*args: P.args, **kwargs: P.kwargs) -> object:
            return await awaited(function, args, kwargs)

        return cast("Callable[P, R]", wraps(function)(later if is_async(function) else retrying))

    async def awaited(
        function: Callable[..., object], args: Any, kwargs: Any, running: Awaitable[object] | None = None
    ) -> object:
        from asyncio import sleep as asyncio_sleep

        decision = _Repetition(attempts, idempotent=idempotent)
        for number in range(attempts):
            with attempt() as this:
                try:
                    result = await (running or cast("Awaitable[object]", function(*args, **kwargs)))
                except Exception as error:
                    if not decision.repeats(error, number):
                        raise
                    this.is_repeated = True
                else:
                    decision.end()
                    return result
            running = None
            waited = (sleep or asyncio_sleep)(wait_before(number))
            if isawaitable(waited):
                await waited
        raise AssertionError("there is at least one attempt")

    return decorate
