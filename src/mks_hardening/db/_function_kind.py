"""Kind of a decorated function: plain, coroutine function or generator."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

from mks_hardening.exceptions import ConfigurationError

__all__ = ["is_async", "refuse_generators"]


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling the function returns a coroutine; includes objects with an ``async def __call__``."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - the method itself


def refuse_generators(function: Callable[..., object]) -> None:
    """Reject generator functions, whose body runs only after the call has returned.

    Raises:
        ConfigurationError: the function is a generator function.
    """
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ConfigurationError(
            "a generator cannot be decorated: use a with statement in its body", parameter="function"
        )
