"""Former names of public methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

__all__ = ["renamed_method"]

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def renamed_method(
    current: Callable[Concatenate[S, P], T],
) -> Callable[[Callable[[S], None]], Callable[Concatenate[S, P], T]]:
    """Return a decorator that replaces an empty method by a call of ``current`` with a ``DeprecationWarning``."""

    def decorate(former: Callable[[S], None]) -> Callable[Concatenate[S, P], T]:
        message = f"{former.__qualname__} is now called {current.__name__}"

        @wraps(current)
        def method(self: S, /, *args: P.args, **options: P.kwargs) -> T:
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return current(self, *args, **options)

        method.__name__, method.__qualname__ = former.__name__, former.__qualname__
        method.__doc__ = former.__doc__
        return method

    return decorate
