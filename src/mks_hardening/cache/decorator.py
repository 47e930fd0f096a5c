"""Cached functions: ``@cached`` for ``def`` and ``async def``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial, update_wrapper
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import text_of
from mks_hardening._core.durations import seconds
from mks_hardening._core.missing import MISSING
from mks_hardening.cache._call_keys import call_normalizer, function_name
from mks_hardening.cache._canonical_text import canonical, digest, kind_of
from mks_hardening.cache._parameters import check_tags
from mks_hardening.cache.base import BaseCache
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CachedFunction", "cache_if", "cached", "set_default_cache"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# As inspect.CO_COROUTINE: inspect is heavy, and needed only where something is decorated.
_CO_COROUTINE: Final = 0x80
_default: BaseCache | None = None


class CachedFunction(Protocol[P, R_co]):
    """A function whose answers are kept; the function itself is ``__wrapped__``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The answer, kept or computed."""
        ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of one call."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the answer of one call."""
        ...


def _checked(cache: object) -> None:
    if not isinstance(cache, BaseCache):
        raise ConfigurationError(
            f"cache must be a cache of this package, not {type(cache).__name__}", parameter="cache"
        )


def set_default_cache(cache: BaseCache | None) -> None:
    """The cache of all functions that were decorated without one; looked up at each call, None switches it off.

    Raises:
        ConfigurationError: it is no cache of this package.
    """
    if cache is not None:
        _checked(cache)
    global _default  # noqa: PLW0603 - the one default of the process is what this function is for
    _default = cache


def cached(
    *,
    cache: BaseCache | None = None,
    ttl: float | timedelta | None = None,
    key_prefix: str = "",
    key_func: Callable[..., object] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    stale_while_revalidate: float | timedelta | None = None,
    condition: Callable[..., object] | None = None,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Keep the answers of a function, ``None`` and empty ones included.

    However a call is spelled (positions, keywords, defaults), it has one key; arguments that cannot be told apart
    safely are refused. Callers that ask at the same time share one computation, over all processes with Redis.
    Works before any cache is set (and calls the function each time then). An answer that is no data is returned
    and not kept, with one warning.

    Args:
        cache: where to keep them; the default cache of the process (``set_default_cache``) when left out.
        ttl: seconds an answer is kept; the cache's own default when left out, 0 for not at all.
        key_prefix: a name instead of module and function; needed for lambdas and closures, and to share answers
            between different functions.
        key_func: takes the arguments, returns what names the call: a text, or a tuple of plain values.
        tags: names for ``invalidate_tags``; or a function of the arguments that returns them.
        stale_while_revalidate: seconds after ``ttl`` in which the old answer is still given at once, while one
            caller's thread (or task) computes the new one.
        condition: a function of the arguments; where it is false the call goes past the cache.

    Raises:
        CacheKeyError: at the call, when an argument cannot be part of a key.
        ConfigurationError: at the decoration, when a parameter is impossible, or when the function has no name that
            tells it from others (a lambda, a closure, a bound method) and there is no ``key_prefix``.
    """
    if cache is not None:
        _checked(cache)
    text_of(key_prefix, parameter="key_prefix")
    for name, called in (("key_func", key_func), ("condition", condition)):
        if called is not None:
            check_function(called, parameter=name)
    for name, duration in (("ttl", ttl), ("stale_while_revalidate", stale_while_revalidate)):
        if duration is not None:
            seconds(duration, parameter=name)
    for_call = tags if callable(tags) else None
    fixed = () if callable(tags) else check_tags(tags)

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        kind = type(function).__name__
        # Above them it would get a descriptor, which has neither name nor signature of its own.
        if kind in {"classmethod", "staticmethod"}:
            raise ConfigurationError(
                f"@cached must stand below @{kind}, next to the function",
                parameter="function",
            )
        name = function_name(function, key_prefix=key_prefix)
        arguments = call_normalizer(function) if key_func is None else _in_a_tuple(key_func)

        def cache_key(*args: P.args, **kwargs: P.kwargs) -> str:
            # Only a digest: arguments may be personal, and keys are seen in MONITOR, slow logs and dumps.
            return f"{name}:{digest(canonical(arguments(*args, **kwargs)))}"

        def tags_of(*args: P.args, **kwargs: P.kwargs) -> Iterable[str]:
            return fixed if for_call is None else for_call(*args, **kwargs)

        def chosen(*args: P.args, **kwargs: P.kwargs) -> BaseCache | None:
            """The cache of this call, or None where it goes past the cache."""
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
                    partial(function, *args, **kwargs),
                    ttl=ttl,
                    tags=tags_of(*args, **kwargs),
                    stale_while_revalidate=stale_while_revalidate,
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
                )
            return value

        def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
            where = _default if cache is None else cache
            if where is not None:
                where.delete(cache_key(*args, **kwargs))

        code = getattr(function, "__code__", None)
        wrapper: Any = acall if code is not None and code.co_flags & _CO_COROUTINE else call
        update_wrapper(wrapper, function)
        wrapper.cache_key = cache_key
        wrapper.invalidate = invalidate
        return cast("CachedFunction[P, R]", wrapper)

    return decorate


def _in_a_tuple(key_func: Callable[P, object]) -> Callable[P, tuple[object, ...]]:
    def arguments(*args: P.args, **kwargs: P.kwargs) -> tuple[object, ...]:
        named = key_func(*args, **kwargs)
        # A tuple is taken as the arguments; a list is one argument, so that both do not meet in one key.
        return cast("tuple[object, ...]", named) if kind_of(named) is tuple else (named,)

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
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """``cached``, for calls whose arguments fulfil ``condition``; the others go past the cache."""
    check_function(condition, parameter="condition")
    return cached(
        cache=cache,
        ttl=ttl,
        key_prefix=key_prefix,
        key_func=key_func,
        tags=tags,
        stale_while_revalidate=stale_while_revalidate,
        condition=condition,
    )
