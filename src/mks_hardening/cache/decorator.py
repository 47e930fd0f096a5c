"""Cached functions: ``@cached`` for ``def`` and ``async def``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial, update_wrapper, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import text_of
from mks_hardening._core.durations import seconds
from mks_hardening._core.missing import MISSING
from mks_hardening.cache._call_keys import call_normalizer, function_name
from mks_hardening.cache._canonical_text import canonical, digest, kind_of
from mks_hardening.cache._entry_options import check_tags
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CachedFunction", "cache_if", "cached", "set_default_cache"]

P = ParamSpec("P")
M = ParamSpec("M")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_default: BaseCache | None = None


class CachedFunction(Protocol[P, R_co]):
    """A function whose answers are kept; the function itself is ``__wrapped__``.

    A method is one too. Of the class, ``cache_key`` and ``invalidate`` take the object first:
    ``Shop.price.invalidate(shop, 7)``.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The answer, kept or computed."""
        ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of one call."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the answer of one call."""
        ...

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """``invalidate`` for asyncio."""
        ...

    # Type checkers do not tell a method from a class method here, so what the class gives takes both calls.
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, M], R], instance: None, owner: type, /
    ) -> _CachedMethod[M, R]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, M], R], instance: object, owner: type | None = None, /
    ) -> Callable[M, R]: ...


class _CachedMethod(Protocol[P, R_co]):
    """A cached method as an attribute of its class; ``first`` is the object, or the class of a class method."""

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
    compute_wait: float | timedelta | None = None,
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
        compute_wait: seconds callers wait for one that computes, before another one computes as well; the cache's
            own when left out. Set it above the time that the function usually takes.
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
        # Above them it would get a descriptor, which has neither name nor signature of its own.
        if kind in {"classmethod", "staticmethod"}:
            raise ConfigurationError(
                f"@cached must stand below @{kind}, next to the function",
                parameter="function",
            )
        name = function_name(function, key_prefix=key_prefix)
        plain = _plain(function)
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
    """Whether it is ``async def``, or is marked as such (``inspect.markcoroutinefunction``)."""
    import inspect  # heavy, and needed only where something is decorated

    # What asgiref and asyncio leave on a function before Python 3.12.
    return inspect.iscoroutinefunction(function) or getattr(function, "_is_coroutine", None) is not None


def _plain(function: Callable[P, R]) -> Callable[P, R]:
    """The function; it refuses to answer with something to be awaited."""

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        answer = function(*args, **kwargs)
        if hasattr(answer, "__await__"):
            close = getattr(answer, "close", None)
            if callable(close):  # without this, Python warns on top that it was never awaited
                close()
            name = getattr(function, "__qualname__", type(function).__name__)
            raise ConfigurationError(
                f"{name} is a plain function and returned something to be awaited: it seems to wrap an async def. "
                "Put @cached below the other decorator, next to async def, or make that decorator return an async "
                "def (or mark what it returns with inspect.markcoroutinefunction)",
                parameter="function",
            )
        return answer

    return plain


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
    compute_wait: float | timedelta | None = None,
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
        compute_wait=compute_wait,
        condition=condition,
    )
