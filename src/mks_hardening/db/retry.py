"""Retry of transactions that fail because of a conflict with another transaction."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from inspect import isawaitable, iscoroutine
from random import SystemRandom
from typing import Any, Final, ParamSpec, TypeVar, cast

from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import whole_number
from mks_hardening._core.database.error_text import SERIALIZATION_CODES, code_of
from mks_hardening._core.durations import seconds
from mks_hardening.db._function_kind import is_async, refuse_generators
from mks_hardening.db.watch._attempt import attempt

__all__ = ["retry_on_serialization_failure"]

P = ParamSpec("P")
R = TypeVar("R")

_MOST_RELATED: Final = 100  # examined errors: each may have a cause, a context and group members

_random: Final = SystemRandom()  # a seeded generator would produce the same delays in every forked worker


def is_serialization_failure(error: BaseException, *, handled: BaseException | None = None) -> bool:
    """Whether retrying the transaction can succeed: serialization failure, deadlock, SQLite busy.

    The driver's error may be the cause or context of an application error, or a member of an exception group.

    Args:
        error: exception raised by the transaction.
        handled: exception that the caller was already handling, and that is the context of every later error.
    """
    seen = {id(handled)}
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < _MOST_RELATED:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if code_of(one) in SERIALIZATION_CODES:
            return True
        seen.add(id(one))
        waiting += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", one).exceptions
    return False


def retry_on_serialization_failure(
    *,
    attempts: int = 5,
    backoff: float | timedelta = 0.02,
    backoff_max: float | timedelta = 1.0,
    sleep: Callable[[float], object] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function or coroutine function that opens, runs and commits a whole transaction.

    After a serialization failure, a deadlock or SQLite's "database is locked" the function is called again, after a
    random delay whose upper bound starts at ``backoff`` and doubles each time; the last error is raised unchanged.
    The function must have no side effects outside its transaction. The failure may also be the cause or context of
    another error, or a member of an exception group. ``watch_queries`` and ``query_budget`` count only the last
    call.

    Args:
        attempts: maximum number of calls.
        backoff: upper bound of the first delay in seconds.
        backoff_max: upper bound of every delay in seconds.
        sleep: function that waits; for a coroutine function it may return an awaitable.

    Raises:
        ConfigurationError: a parameter is invalid, or the function is a generator function, whose body runs only
            after the call.
    """
    whole_number(attempts, parameter="attempts", minimum=1)
    first = seconds(backoff, parameter="backoff")
    longest = seconds(backoff_max, parameter="backoff_max")
    if sleep is not None:
        check_function(sleep, parameter="sleep")

    def wait_before(attempt: int) -> float:
        # Starts at 0 ("full jitter"), so that transactions that collided do not collide again.
        return _random.uniform(0, min(longest, first * 2**attempt))

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        refuse_generators(function)

        def retrying(*args: P.args, **kwargs: P.kwargs) -> R:
            handled = sys.exc_info()[1]
            for number in range(attempts):
                with attempt() as this:
                    try:
                        result = function(*args, **kwargs)
                    except Exception as error:
                        if number == attempts - 1 or not is_serialization_failure(error, handled=handled):
                            raise
                        this.is_repeated = True
                    else:
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

        handled = sys.exc_info()[1]
        for number in range(attempts):
            with attempt() as this:
                try:
                    return await (running or cast("Awaitable[object]", function(*args, **kwargs)))
                except Exception as error:
                    if number == attempts - 1 or not is_serialization_failure(error, handled=handled):
                        raise
                    this.is_repeated = True
            running = None
            waited = (sleep or asyncio_sleep)(wait_before(number))
            if isawaitable(waited):
                await waited
        raise AssertionError("there is at least one attempt")

    return decorate
