"""Methods made of operations: one body and one signature for ``verify`` and its asyncio version ``averify``.

``sync_method`` turns a method that returns an operation (``_core/operations.py``) into one that runs it, and
``async_method`` adds the asyncio version::

    @sync_method
    def verify(self, user_id: str, code: str) -> Op[Result]:
        '''Check a code.'''
        ...

    @async_method(verify)
    def averify(self) -> None:
        '''``verify`` for asyncio.'''
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from mks_hardening._core.operations import Op, arun, run

__all__ = ["async_method", "sync_method"]

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def sync_method(operation: Callable[Concatenate[S, P], Op[T]]) -> Callable[Concatenate[S, P], T]:
    """Return a method that runs the operation in the calling thread."""

    @wraps(operation)
    def method(self: S, /, *args: P.args, **options: P.kwargs) -> T:
        return run(operation(self, *args, **options))

    # Editors and the documentation show the result, not the operation.
    annotations: dict[str, str] = operation.__annotations__
    annotations["return"] = annotations["return"].removeprefix("Op[").removesuffix("]")
    return method


def async_method(
    method: Callable[Concatenate[S, P], T],
) -> Callable[[Callable[[S], None]], Callable[Concatenate[S, P], CoroutineType[Any, Any, T]]]:
    """Return a decorator that replaces an empty method by the asyncio version of ``method``."""
    operation = cast("Callable[Concatenate[S, P], Op[T]]", vars(method)["__wrapped__"])

    def decorate(placeholder: Callable[[S], None]) -> Callable[Concatenate[S, P], CoroutineType[Any, Any, T]]:
        @wraps(operation)
        async def twin(self: S, /, *args: P.args, **options: P.kwargs) -> T:
            return await arun(operation(self, *args, **options))

        twin.__name__, twin.__qualname__ = placeholder.__name__, placeholder.__qualname__
        twin.__doc__ = placeholder.__doc__
        # For mypy, ``async def`` gives a Coroutine; pyright expects the CoroutineType of protocols.
        made: Callable[Concatenate[S, P], CoroutineType[Any, Any, T]] = cast("Any", twin)
        return made

    return decorate
