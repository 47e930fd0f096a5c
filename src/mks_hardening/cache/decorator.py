"""Cached functions: ``@cached`` for ``def`` and ``async def``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial, update_wrapper, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.canonical_text import canonical, digest, exact_type
from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import text_of
from mks_hardening._core.durations import seconds
from mks_hardening._core.missing import MISSING
from mks_hardening.cache._call_keys import call_normalizer, function_name
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CachedFunction", "cache_if", "cached", "set_default_cache"]

P = ParamSpec("P")
M = ParamSpec("M")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_default: BaseCache | None = None


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are cached; the function itself is ``__wrapped__``.

    A cached method has this interface too. Accessed on the class, ``cache_key`` and ``invalidate`` take the object
    first: ``Shop.price.invalidate(shop, 7)``.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result, cached or computed."""
        ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the cache key of a call with these arguments."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Delete the cached result of a call with these arguments."""
        ...

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """``invalidate`` for asyncio."""
        ...

    # Type checkers cannot tell methods from class methods here, so the attribute of the class accepts both calls.
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, M], R], instance: None, owner: type, /
    ) -> _CachedMethod[M, R]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, M], R], instance: object, owner: type | None = None, /
    ) -> Callable[M, R]: ...


class _CachedMethod(Protocol[P, R_co]):
    """A cached method as an attribute of its class; ``first`` is the object, or the class for a class method."""

    @overload
    def __call__(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def cache_key(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> str: ...

    def invalidate(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> None: ...

    async def ainvalidate(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> None: ...


def _checked(cache: object) -> None:
    if not isinstance(cache, BaseCache):
        raise ConfigurationError(
            f"cache must be a cache of this package, not {type(cache).__name__}", parameter="cache"
        )


def set_default_cache(cache: BaseCache | None) -> None:
    """Set the cache of all functions decorated without one; looked up at each call, None switches it off.

    Raises:
        ConfigurationError: not a cache of this package.
    """
    if cache is not None:
        _checked(cache)
    global _default  # noqa: PLW0603 - setting the default of the process is the purpose of this function
    _default = cache


def cached(
    *,
    cache: BaseCache | None = None,
    ttl: float | timedelta | None = None,
    key_prefix: str = "",
    key_func: Callable[..., object] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    stale_while_revalidate: float | timedelta | None = None,
    compute_wait: float | timedelta | None = None,
    condition: Callable[..., object] | None = None,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Cache the results of a function, including ``None`` and empty ones.

    Positional, keyword and default spellings of a call share one key; arguments without an unambiguous key raise an
    error. Callers that request the same key at the same time share one computation, with Redis across all
    processes. Without a cache the function is called each time, so you can decorate before a default cache is set.
    A result that is not plain data is returned but not stored, with one warning per function.

    Args:
        cache: the cache to use; by default the one set by ``set_default_cache``.
        ttl: seconds for which a result is stored, 0 for not at all; by default that of the cache.
        key_prefix: a name that replaces module and function; required for lambdas and closures, and to share
            results between functions.
        key_func: called with the arguments; returns what identifies the call: a string, or a tuple of plain values.
        tags: names for ``invalidate_tags``; or a function of the arguments that returns them.
        stale_while_revalidate: seconds after ``ttl`` during which the old result is still returned at once, while a
            thread (or task) of one caller computes the new one.
        compute_wait: seconds that callers wait for a computation before another one starts; by default that of the
            cache. Set it above the usual running time of the function.
        condition: a function of the arguments; if it returns false, the call bypasses the cache.

    Raises:
        CacheKeyError: at the call, if an argument cannot be part of a key.
        ConfigurationError: at the decoration, if a parameter is invalid, or if nothing identifies the function (a
            lambda, a closure, a bound method) and there is no ``key_prefix``.
    """
    if cache is not None:
        _checked(cache)
    text_of(key_prefix, parameter="key_prefix")
    for name, called in (("key_func", key_func), ("condition", condition)):
        if called is not None:
            check_function(called, parameter=name)
    for name, duration in (
        ("ttl", ttl),
        ("stale_while_revalidate", stale_while_revalidate),
        ("compute_wait", compute_wait),
    ):
        if duration is not None:
            seconds(duration, parameter=name)
    for_call = tags if callable(tags) else None
    fixed = () if callable(tags) else check_tags(tags)

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        kind = type(function).__name__
        # Above them the decorator would get a descriptor, which has neither name nor signature of its own.
        if kind in {"classmethod", "staticmethod"}:
            raise ConfigurationError(
                f"@cached must be below @{kind}, next to the function",
                parameter="function",
            )
        name = function_name(function, key_prefix=key_prefix)
        plain = _plain(function)
        arguments = call_normalizer(function) if key_func is None else _in_a_tuple(key_func)

        def cache_key(*args: P.args, **kwargs: P.kwargs) -> str:
            # A digest only: arguments may be personal data, and keys appear in MONITOR, slow logs and dumps.
            return f"{name}:{digest(canonical(arguments(*args, **kwargs)))}"

        def tags_of(*args: P.args, **kwargs: P.kwargs) -> Iterable[str]:
            return fixed if for_call is None else for_call(*args, **kwargs)

        def chosen(*args: P.args, **kwargs: P.kwargs) -> BaseCache | None:
            """Return the cache for this call, or None if it bypasses the cache."""
            where = _default if cache is None else cache
            if where is not None and condition is not None and not condition(*args, **kwargs):
                where.count_bypass("condition")
                return None
            return where

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            where = chosen(*args, **kwargs)
            if where is None:
                return function(*args, **kwargs)
            key = cache_key(*args, **kwargs)
            value = where.peek(key)
            if value is MISSING:
                value = where.get_or_compute(
                    key,
                    partial(plain, *args, **kwargs),
                    ttl=ttl,
                    tags=tags_of(*args, **kwargs),
                    stale_while_revalidate=stale_while_revalidate,
                    compute_wait=compute_wait,
                )
            return cast("R", value)

        async def acall(*args: P.args, **kwargs: P.kwargs) -> object:
            awaited = cast("Callable[P, Awaitable[object]]", function)
            where = chosen(*args, **kwargs)
            if where is None:
                return await awaited(*args, **kwargs)
            key = cache_key(*args, **kwargs)
            value = where.peek(key)
            if value is MISSING:
                value = await where.aget_or_compute(
                    key,
                    partial(awaited, *args, **kwargs),
                    ttl=ttl,
                    tags=tags_of(*args, **kwargs),
                    stale_while_revalidate=stale_while_revalidate,
                    compute_wait=compute_wait,
                )
            return value

        def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
            where = _default if cache is None else cache
            if where is not None:
                where.delete(cache_key(*args, **kwargs))

        async def ainvalidate(*args: P.args, **kwargs: P.kwargs) -> None:
            where = _default if cache is None else cache
            if where is not None:
                await where.adelete(cache_key(*args, **kwargs))

        wrapper: Any = update_wrapper(acall if _is_coroutine_function(function) else call, function)
        for added in (cache_key, invalidate, ainvalidate):
            setattr(wrapper, added.__name__, added)
        return cast("CachedFunction[P, R]", wrapper)

    return decorate


def _is_coroutine_function(function: Callable[..., object]) -> bool:
    """Return whether a function is ``async def``, or marked as such (``inspect.markcoroutinefunction``)."""
    import inspect  # not at module level: it is slow to import, and needed only to decorate

    # The attribute is set by asgiref and asyncio before Python 3.12.
    return inspect.iscoroutinefunction(function) or getattr(function, "_is_coroutine", None) is not None


def _plain(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a plain function so that it raises an error if it returns an awaitable."""

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        answer = function(*args, **kwargs)
        if hasattr(answer, "__await__"):
            close = getattr(answer, "close", None)
            if callable(close):  # otherwise Python warns as well that it was never awaited
                close()
            name = getattr(function, "__qualname__", type(function).__name__)
            raise ConfigurationError(
                f"{name} is a plain function and returned an awaitable: it seems to wrap an async def. "
                "Put @cached below the other decorator, next to async def, or make that decorator return an async "
                "def (or mark what it returns with inspect.markcoroutinefunction)",
                parameter="function",
            )
        return answer

    return plain


def _in_a_tuple(key_func: Callable[P, object]) -> Callable[P, tuple[object, ...]]:
    def arguments(*args: P.args, **kwargs: P.kwargs) -> tuple[object, ...]:
        named = key_func(*args, **kwargs)
        # A tuple counts as the arguments and a list as one argument, so that they never share a key.
        return cast("tuple[object, ...]", named) if exact_type(named) is tuple else (named,)

    return arguments


def cache_if(
    condition: Callable[..., object],
    *,
    cache: BaseCache | None = None,
    ttl: float | timedelta | None = None,
    key_prefix: str = "",
    key_func: Callable[..., object] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    stale_while_revalidate: float | timedelta | None = None,
    compute_wait: float | timedelta | None = None,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """``cached`` for calls whose arguments satisfy ``condition``; other calls bypass the cache."""
    check_function(condition, parameter="condition")
    return cached(
        cache=cache,
        ttl=ttl,
        key_prefix=key_prefix,
        key_func=key_func,
        tags=tags,
        stale_while_revalidate=stale_while_revalidate,
        compute_wait=compute_wait,
        condition=condition,
    )
