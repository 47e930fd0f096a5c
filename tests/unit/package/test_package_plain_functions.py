"""Parameters that take a plain function refuse ``async def`` and generators, whose results are always true."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.cache import MemoryCache, cache_if, cached
from mks_hardening.contrib import flask_app
from mks_hardening.events import add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import PasswordPolicy, RateLimiter
from mks_hardening.wsgi import BanList, BanRule, CacheRule, ConcurrencyRule, MemorySessionStore, RateLimitRule


async def coroutine(*arguments: Any) -> bool:
    return False


def generator(*arguments: Any) -> Iterator[bool]:
    yield False


async def async_generator(*arguments: Any) -> AsyncIterator[bool]:
    yield False


class _Called:
    async def __call__(self, *arguments: Any) -> bool:
        return False


class _Yielding:
    def __call__(self, *arguments: Any) -> Iterator[bool]:
        yield False


LAZY: dict[str, Any] = {
    "async def": coroutine,
    "generator": generator,
    "async generator": async_generator,
    "partial": functools.partial(coroutine, 1),
    "object": _Called(),
    "partial object": functools.partial(functools.partial(_Called(), 1)),
    "partial yielding object": functools.partial(_Yielding()),
    "method": _Called().__call__,
}


def _wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


def _session(given: Any, *, middleware: Any, app: Any) -> object:
    return middleware(app, store=MemorySessionStore(), on_expired=given)


def _clients(given: Any, *, middleware: Any, app: Any) -> object:
    bans = BanList([BanRule("r", when=[404])])
    return middleware(app, bans=bans, exempt=given)


def _refusing(given: Any, *, middleware: Any, app: Any) -> object:
    limiter = RateLimiter({"g": "1/minute"})
    return middleware(app, limiter=limiter, rules=[RateLimitRule("g")], on_refusal=given)


def _cached_pages(given: Any) -> object:
    """ASGI applications may await the identity."""
    rule = CacheRule("/*", ttl=1, identity=given)
    asgi.ResponseCacheMiddleware(_asgi, cache=MemoryCache(), rules=[rule])
    return wsgi.ResponseCacheMiddleware(_wsgi, cache=MemoryCache(), rules=[rule])


def _function() -> int:
    return 1


OF_RULES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "RateLimitRule key": ("key", lambda given: RateLimitRule("g", key=given)),
    "RateLimitRule exempt": ("exempt", lambda given: RateLimitRule("g", exempt=given)),
    "RateLimitRule final_cost": ("final_cost", lambda given: RateLimitRule("g", final_cost=given)),
    "ConcurrencyRule": ("exempt", lambda given: ConcurrencyRule("g", exempt=given)),
    "RateLimiter": ("exempt", lambda given: RateLimiter({"g": "1/minute"}, exempt=given)),
    "RateLimiter.limit": ("key", lambda given: RateLimiter({"g": "1/minute"}).limit("g", key=given)),
    "BanRule": ("when", lambda given: BanRule("r", when=given)),
    "CacheRule": ("identity", _cached_pages),
    "PasswordPolicy": ("breached", lambda given: PasswordPolicy(breached=given)),
    "observer": ("observer", add_observer),
    "cached key_func": ("key_func", lambda given: cached(key_func=given)(_function)),
    "cached condition": ("condition", lambda given: cached(condition=given)(_function)),
    "cached store_if": ("store_if", lambda given: cached(store_if=given)(_function)),
    "cached ttl": ("ttl", lambda given: cached(ttl=given)(_function)),
    "cached tags": ("tags", lambda given: cached(tags=given)(_function)),
    "cache_if": ("condition", lambda given: cache_if(given)(_function)),
    "flask limit key": ("key", lambda given: flask_app.limit("g", key=given)),
    "flask limit exempt": ("exempt", lambda given: flask_app.limit("g", exempt=given)),
}
OF_MIDDLEWARE: dict[str, tuple[str, Callable[[Any], object]]] = {
    f"{package.__name__} {name}": (
        parameter,
        functools.partial(build, middleware=getattr(package, name), app=app),
    )
    for package, app in ((wsgi, _wsgi), (asgi, _asgi))
    for name, parameter, build in (
        ("SessionTimeoutMiddleware", "on_expired", _session),
        ("ClientRulesMiddleware", "exempt", _clients),
        ("RateLimitMiddleware", "on_refusal", _refusing),
    )
}


TAKERS = OF_RULES | OF_MIDDLEWARE


def _error_of(take: Callable[[Any], object], given: Any) -> ConfigurationError | None:
    try:
        take(given)
    except ConfigurationError as error:
        return error
    remove_observer(given)
    return None


@pytest.mark.parametrize("taker", TAKERS)
def test_a_function_whose_result_is_always_true_is_refused_by_the_name_of_its_parameter(taker: str) -> None:
    parameter, take = TAKERS[taker]
    errors = {kind: _error_of(take, given) for kind, given in LAZY.items()}
    assert {kind for kind, error in errors.items() if error is None} == set()
    assert {error.parameter for error in errors.values() if error} == {parameter}
    assert all(str(error).startswith(f"{parameter} must be a plain function") for error in errors.values())
    take(print)
    remove_observer(print)
