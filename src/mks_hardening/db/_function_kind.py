"""What a decorator has to know of a function: whether its body runs in the call, in an ``await``, or later."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

from mks_hardening.exceptions import ConfigurationError

__all__ = ["is_async", "refuse_generators"]


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine; objects with an ``async def __call__`` too."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - the method itself


def refuse_generators(function: Callable[..., object]) -> None:
    """Generators run after the call is over.

    Raises:
        ConfigurationError: it is one.
    """
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ConfigurationError(
            "a generator cannot be decorated: use a with statement in its body", parameter="function"
        )
