"""Cached functions: ``@cached`` for ``def`` and ``async def``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import update_wrapper, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.canonical_text import exact_type
from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import is_async, text_of
from mks_hardening._core.missing import MISSING
from mks_hardening.cache._call_keys import Normalizer, call_normalizer, function_name
from mks_hardening.cache._function_cache import (
    FunctionCache,
    FunctionOptions,
    call_options,
    check_cache,
    declared_type,
    version_text,
)
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.cache_stats import CacheStats
from mks_hardening.cache.compute._result_computation import ResultRules
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CachedFunction", "cache_if", "cached"]

P = ParamSpec("P")
M = ParamSpec("M")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


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

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function now, whatever is cached, and cache its result; await it if the function is async."""
        ...

    def cache_info(self) -> CacheStats:
        """Return the counts of this function in this process."""
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

    def refresh(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def cache_info(self) -> CacheStats: ...


@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached(
    *,
    cache: BaseCache | None = None,
    ttl: float | timedelta | Callable[[Any], float | timedelta | None] | None = None,
    key_prefix: str = "",
    key_func: Callable[..., object] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    stale_while_revalidate: float | timedelta | None = None,
    compute_wait: float | timedelta | None = None,
    condition: Callable[..., object] | None = None,
    store_if: Callable[[Any], object] | None = None,
    stale_on_error: float | timedelta | None = None,
    soft_timeout: float | timedelta | None = None,
    early_refresh: float = 0,
    value_type: object = None,
    version: int | str = "",
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...


def cached(
    function: Callable[P, R] | None = None,
    /,
    *,
    cache: BaseCache | None = None,
    ttl: float | timedelta | Callable[[Any], float | timedelta | None] | None = None,
    key_prefix: str = "",
    key_func: Callable[..., object] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    stale_while_revalidate: float | timedelta | None = None,
    compute_wait: float | timedelta | None = None,
    condition: Callable[..., object] | None = None,
    store_if: Callable[[Any], object] | None = None,
    stale_on_error: float | timedelta | None = None,
    soft_timeout: float | timedelta | None = None,
    early_refresh: float = 0,
    value_type: object = None,
    version: int | str = "",
) -> CachedFunction[P, R] | Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Cache the results of a function, including ``None`` and empty ones.

    Positional, keyword and default spellings of a call share one key; arguments without an unambiguous key raise an
    error. Callers that request the same key at the same time share one computation, with Redis across all
    processes. Without a cache the function is called each time, so you can decorate before a default cache is set.

    Results are plain data, or what the return annotation declares: dataclasses, msgspec structs, Pydantic models,
    named tuples, enums, typed mappings, and lists, tuples, sets and mappings of them. They come back with the same
    types. If the fields of a class in the annotation change, the entries are others: a release never reads values
    of another one. Any other result is returned but not stored, with one warning per function.

    ``@cached`` without parentheses uses the defaults. If a function given as an option raises an error, the caller
    gets it, like an error of the decorated function itself.

    Args:
        function: the function, if the decorator has no parentheses.
        cache: the cache to use; by default the one set by ``set_default_cache``.
        ttl: seconds for which a result is stored, 0 for not at all; or a function of the result that returns them.
            By default, and for None, that of the cache.
        key_prefix: a name that replaces module and function; required for lambdas and closures, and to share
            results between functions.
        key_func: called with the arguments; returns what identifies the call: a string, or a tuple of plain values.
        tags: names for ``invalidate_tags``; or a function of the arguments that returns them.
        stale_while_revalidate: seconds after ``ttl`` during which the old result is still returned at once, while a
            thread (or task) of one caller computes the new one.
        compute_wait: seconds that callers wait for a computation before another one starts; by default that of the
            cache. Set it above the usual running time of the function.
        condition: a function of the arguments; if it returns false, the call bypasses the cache.
        store_if: a function of the result; if it returns false, the result is returned but not stored.
        stale_on_error: seconds after ``ttl`` during which the old result is returned if the function raises an
            error. The next attempt of a process follows after one second, then after two, up to 30.
        soft_timeout: seconds that a caller waits for the function while there is an old result for
            ``stale_on_error``; then it gets the old one, and the computation continues in the background.
        early_refresh: how eagerly a result is recomputed in the background before it expires (XFetch: Vattani,
            Chierichetti, Lowenstein, VLDB 2015): 1 is optimal, more is earlier, 0 is never, up to 10. The longer
            the function takes, the earlier.
        value_type: the type of the results, if the annotation does not declare it.
        version: of the function, as text or a number; entries of other versions are neither read nor invalidated.

    Raises:
        CacheKeyError: at the call, if an argument cannot be part of a key; it names the argument.
        ConfigurationError: at the decoration, if a parameter is invalid, or if nothing identifies the function (a
            lambda, a closure, a bound method) and there is no ``key_prefix``.
    """
    if cache is not None:
        check_cache(cache)
    text_of(key_prefix, parameter="key_prefix")
    called = {"ttl": ttl, "key_func": key_func, "tags": tags, "condition": condition, "store_if": store_if}
    for parameter, given in called.items():
        if given is not None and (callable(given) or parameter not in ("ttl", "tags")):
            check_function(cast("Callable[..., object]", given), parameter=parameter)
    options = FunctionOptions(
        cache,
        call_options(
            ttl,
            stale_while_revalidate,
            compute_wait,
            stale_on_error=stale_on_error,
            soft_timeout=soft_timeout,
            early_refresh=early_refresh,
        ),
        tags if callable(tags) else check_tags(tags),
        condition,
        ResultRules(
            None if value_type is None else declared_type(value_type),
            ttl if callable(ttl) else None,
            store_if,
        ),
        version_text(version),
        early_refresh > 0,
    )

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        kind = type(function).__name__
        # Above them the decorator would get a descriptor, which has neither name nor signature of its own.
        if kind in {"classmethod", "staticmethod"}:
            raise ConfigurationError(
                f"@cached must be below @{kind}, next to the function",
                parameter="function",
            )
        name = function_name(function, key_prefix=key_prefix)
        awaits = is_async(function)
        plain = function if awaits else _plain(function)
        normalized = call_normalizer(function) if key_func is None else _in_a_tuple(key_func)
        results = FunctionCache(plain, name, normalized, options, names_arguments=key_func is None)

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            where, key, value = results.find(args, kwargs)
            if value is MISSING:
                if where is None:
                    return function(*args, **kwargs)
                compute, terms = results.computation(args, kwargs), results.options(where, args, kwargs)
                value = where.get_or_compute_with(key, compute, terms)
            return cast("R", value)

        async def acall(*args: P.args, **kwargs: P.kwargs) -> object:
            where, key, value = results.find(args, kwargs)
            if value is MISSING:
                if where is None:
                    return await cast("Callable[P, Awaitable[object]]", function)(*args, **kwargs)
                compute, terms = results.computation(args, kwargs), results.options(where, args, kwargs)
                value = await where.aget_or_compute_with(key, compute, terms)
            return value

        def refresh(*args: P.args, **kwargs: P.kwargs) -> object:
            where = results.cache_for(args, kwargs)
            if where is None:
                return function(*args, **kwargs)
            refreshed = where.arefresh_with if awaits else where.refresh_with
            compute, terms = results.computation(args, kwargs), results.options(where, args, kwargs)
            return refreshed(results.key(args, kwargs), compute, terms)

        def cache_key(*args: P.args, **kwargs: P.kwargs) -> str:
            return results.key(args, kwargs)

        def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
            where = results.cache
            if where is not None:
                where.delete(results.key(args, kwargs))

        async def ainvalidate(*args: P.args, **kwargs: P.kwargs) -> None:
            where = results.cache
            if where is not None:
                await where.adelete(results.key(args, kwargs))

        wrapper: Any = update_wrapper(acall if awaits else call, function)
        for added in (cache_key, invalidate, ainvalidate, refresh, results.cache_info):
            setattr(wrapper, added.__name__, added)
        return cast("CachedFunction[P, R]", wrapper)

    return (
        decorate
        if function is None
        else decorate(check_function(function, parameter="function", may_be_async=True))
    )


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


def _in_a_tuple(key_func: Callable[..., object]) -> Normalizer:
    def arguments(*args: object, **kwargs: object) -> tuple[tuple[object, ...], tuple[type, ...]]:
        named = key_func(*args, **kwargs)
        # A tuple counts as the arguments and a list as one argument, so that they never share a key.
        parts = cast("tuple[object, ...]", named) if exact_type(named) is tuple else (named,)
        return parts, (*map(type, parts),)

    return arguments


def cache_if(
    condition: Callable[..., object],
    *,
    cache: BaseCache | None = None,
    ttl: float | timedelta | Callable[[Any], float | timedelta | None] | None = None,
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
