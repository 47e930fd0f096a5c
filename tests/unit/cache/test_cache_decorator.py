"""Cached functions: what is kept, for whom, until when, and what goes past the cache."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache, NullCache, cache_if, cached, set_default_cache
from mks_hardening.events import CachedCall, CacheRead, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def cache(clock: FrozenClock) -> MemoryCache:
    return MemoryCache(clock=clock, jitter=0)


@pytest.fixture
def default_cache(cache: MemoryCache) -> Iterator[MemoryCache]:
    set_default_cache(cache)
    yield cache
    set_default_cache(None)


def _refreshed() -> None:
    """Wait for refreshes that run beside."""
    for thread in threading.enumerate():
        if thread.name == "mks-cache-refresh":
            thread.join()


class Counter:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        answer = self.answers[min(self.calls, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _function(counter: Counter, **options: Any) -> Callable[..., Any]:
    @cached(key_prefix="f", **options)
    def function(_a: int = 0) -> Any:
        return counter()

    return function


@pytest.mark.parametrize("answer", [None, False, 0, "", [], {}, (), "value", {"a": [1, (2,)]}])
def test_every_answer_is_kept(cache: MemoryCache, answer: Any) -> None:
    counter = Counter(answer)
    function = _function(counter, cache=cache)
    assert [function(), function(), function(1)] == [answer] * 3
    assert counter.calls == 2


def test_answers_end_with_their_ttl(cache: MemoryCache, clock: FrozenClock) -> None:
    function = _function(Counter(1, 2), cache=cache, ttl=10)
    assert function() == 1
    clock.advance(9.9)
    assert function() == 1
    clock.advance(0.2)
    assert function() == 2


def test_errors_are_not_kept(cache: MemoryCache) -> None:
    function = _function(Counter(ValueError("once"), 7), cache=cache)
    with pytest.raises(ValueError, match="once"):
        function()
    assert function() == 7


def test_answers_that_are_no_data_are_returned_and_warned_of_once(
    cache: MemoryCache, caplog: pytest.LogCaptureFixture
) -> None:
    function = _function(Counter(object()), cache=cache)
    assert [type(function()) for _ in range(3)] == [object] * 3
    assert cache.stats().bypasses == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "test_cache_decorator._function.<locals>.function" in caplog.text


def test_what_was_handed_out_can_be_changed(cache: MemoryCache) -> None:
    function = _function(Counter({"list": [1]}), cache=cache)
    function()["list"].append(2)
    assert function() == {"list": [1]}


def test_the_default_cache_is_looked_up_at_each_call() -> None:
    counter = Counter(1, 2, 3, 4)
    function = _function(counter)
    assert [function(), function()] == [1, 2]
    set_default_cache(MemoryCache())
    try:
        assert [function(), function()] == [3, 3]
        set_default_cache(NullCache())
        assert function() == 4
    finally:
        set_default_cache(None)
    with pytest.raises(ConfigurationError, match="cache"):
        set_default_cache({})  # type: ignore[arg-type]


def test_an_empty_cache_is_still_a_cache(default_cache: MemoryCache) -> None:
    own = MemoryCache()
    _function(Counter(1), cache=own)()
    assert (own.stats().misses, default_cache.stats().misses) == (1, 0)


def test_without_parentheses_the_defaults_apply(default_cache: MemoryCache) -> None:
    @cached
    def double(number: int) -> int:
        return 2 * number

    @cached
    async def adouble(number: int) -> int:
        return 2 * number

    assert [double(3), double(3), asyncio.run(adouble(3)), asyncio.run(adouble(3))] == [6] * 4
    assert (double.cache_info().hits, adouble.cache_info().hits) == (1, 1)
    with pytest.raises(ConfigurationError, match="function must be callable"):
        cached(60)  # type: ignore[call-overload]  # a ttl without its name


def test_tags_fixed_and_by_argument(cache: MemoryCache) -> None:
    calls: list[int] = []

    @cached(cache=cache, key_prefix="f", tags=lambda number: (f"article:{number}", "articles"))
    def article(number: int) -> int:
        calls.append(number)
        return number

    for number in (1, 2, 1, 2):
        article(number)
    cache.invalidate_tags("article:1")
    article(1)
    article(2)
    assert calls == [1, 2, 1]
    cache.invalidate_tags("articles")
    article(1)
    article(2)
    assert calls == [1, 2, 1, 1, 2]


def test_one_call_can_be_forgotten(cache: MemoryCache) -> None:
    counter = Counter(1, 2, 3)
    function: Any = _function(counter, cache=cache)
    assert [function(1), function(2)] == [1, 2]
    function.invalidate(1)
    assert [function(1), function(2)] == [3, 2]
    assert cache.exists(function.cache_key(_a=2))


def test_the_condition_sends_calls_past_the_cache(cache: MemoryCache) -> None:
    counter = Counter(1, 2, 3, 4)

    @cache_if(lambda user: user is None, cache=cache, key_prefix="page")
    def page(user: str | None) -> int:
        answer: int = counter()
        return answer

    assert [page("taro"), page("taro"), page(None), page(None), page(user=None)] == [1, 2, 3, 3, 3]
    assert cache.stats().bypasses == 2


@pytest.mark.parametrize("option", ["condition", "store_if"])
def test_a_condition_whose_result_has_to_be_awaited(cache: MemoryCache, option: str) -> None:
    """Nothing at construction shows it, and a coroutine is always true."""

    async def never(_: object) -> bool:
        return False

    function = _function(Counter(1, 2), cache=cache, **{option: lambda *args: never(args)})
    with pytest.raises(ConfigurationError, match="async def function was given"):
        function(1)


def test_key_func_names_the_call(cache: MemoryCache) -> None:
    function = _function(Counter(1, 2), cache=cache, key_func=lambda a: a // 10)
    assert [function(1), function(9), function(10)] == [1, 1, 2]


def test_the_function_keeps_its_face(cache: MemoryCache) -> None:
    @cached(cache=cache)
    def documented(a: int) -> int:
        """Says what it does."""
        return a

    assert documented.__name__ == "documented"  # type: ignore[attr-defined]  # a function behind a protocol
    assert documented.__doc__ == "Says what it does."
    assert documented.__wrapped__(3) == 3  # type: ignore[attr-defined]  # as above


def test_events_tell_of_reads(cache: MemoryCache) -> None:
    heard: list[Any] = []
    add_observer(heard.append)
    try:
        function = _function(Counter(1), cache=cache, condition=lambda a=0: a >= 0)
        function()
        function()
        function(-1)
    finally:
        remove_observer(heard.append)
    assert heard == [
        CacheRead("memory", "miss"),
        CachedCall("f", "miss"),
        CacheRead("memory", "hit"),
        CachedCall("f", "hit"),
        CacheRead("memory", "bypass", "condition"),
        CachedCall("f", "bypass", "condition"),
    ]


# --- async -----------------------------------------------------------------------------------


def test_coroutine_functions(cache: MemoryCache) -> None:
    counter = Counter(1, 2)

    @cached(cache=cache, key_prefix="f", tags=["t"])
    async def answer(_a: int) -> Any:
        await asyncio.sleep(0)
        return counter()

    async def scenario() -> list[Any]:
        together = await asyncio.gather(*(answer(1) for _ in range(20)))
        await cache.ainvalidate_tags("t")
        return [*together, await answer(1)]

    assert asyncio.run(scenario()) == [1] * 20 + [2]
    assert asyncio.iscoroutinefunction(answer)


def test_a_cancelled_computation_is_taken_over(cache: MemoryCache) -> None:
    started = 0

    async def scenario() -> Any:
        release = asyncio.Event()

        async def compute() -> str:
            nonlocal started
            started += 1
            if started == 1:
                await release.wait()
            return "value"

        first = asyncio.create_task(cache.aget_or_compute("k", compute))
        await asyncio.sleep(0)
        second = asyncio.create_task(cache.aget_or_compute("k", compute))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(scenario()) == "value"
    assert started == 2


def test_without_a_cache_a_coroutine_function_is_called() -> None:
    counter = Counter(1, 2)

    @cached(key_prefix="f")
    async def answer() -> Any:
        return counter()

    async def scenario() -> list[Any]:
        return [await answer(), await answer()]

    assert asyncio.run(scenario()) == [1, 2]


# --- stale while revalidate ------------------------------------------------------------------


def test_a_stale_answer_is_given_at_once_and_refreshed_beside(cache: MemoryCache, clock: FrozenClock) -> None:
    gate = threading.Event()
    gate.set()
    calls: list[int] = []

    @cached(cache=cache, key_prefix="f", ttl=10, stale_while_revalidate=20)
    def answer() -> int:
        calls.append(1)
        assert gate.wait(10)
        return len(calls)

    assert answer() == 1
    clock.advance(11)
    gate.clear()
    assert [answer() for _ in range(50)] == [1] * 50
    gate.set()
    _refreshed()
    assert answer() == 2
    assert len(calls) == 2
    assert cache.stats().stale == 50


def test_a_stale_answer_ends_too(cache: MemoryCache, clock: FrozenClock) -> None:
    function = _function(Counter(1, 2), cache=cache, ttl=10, stale_while_revalidate=20)
    assert function() == 1
    clock.advance(31)
    assert function() == 2


def test_a_failed_refresh_leaves_the_stale_answer(
    cache: MemoryCache, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    function = _function(Counter(1, ValueError("down"), 3), cache=cache, ttl=10, stale_while_revalidate=60)
    function()
    clock.advance(11)
    assert function() == 1
    _refreshed()
    assert "could not be recomputed" in caplog.text
    assert function() == 1
    _refreshed()
    assert function() == 3


def test_an_invalidation_ends_a_stale_answer_and_its_refresh(cache: MemoryCache, clock: FrozenClock) -> None:
    gate = threading.Event()
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        if len(calls) == 2:
            assert gate.wait(10)
        return len(calls)

    ask = lambda: cache.get_or_compute("k", compute, ttl=10, tags=["t"], stale_while_revalidate=60)  # noqa: E731
    assert ask() == 1
    clock.advance(11)
    assert ask() == 1
    cache.invalidate_tags("t")
    assert ask() == 3
    gate.set()
    _refreshed()
    assert ask() == 3


def test_a_plain_read_never_gives_a_stale_value(cache: MemoryCache, clock: FrozenClock) -> None:
    cache.get_or_compute("k", lambda: 1, ttl=10, stale_while_revalidate=60)
    clock.advance(11)
    assert cache.get("k") is None
    assert not cache.exists("k")
    assert cache.get_or_compute("k", lambda: 2, ttl=10) == 2


def test_tasks_refresh_beside_too(cache: MemoryCache, clock: FrozenClock) -> None:
    counter = Counter(1, 2)

    @cached(cache=cache, key_prefix="f", ttl=10, stale_while_revalidate=20)
    async def answer() -> Any:
        await asyncio.sleep(0)
        return counter()

    async def scenario() -> list[Any]:
        seen = [await answer()]
        clock.advance(11)
        seen += await asyncio.gather(*(answer() for _ in range(20)))
        while counter.calls < 2:  # noqa: ASYNC110 - the refresh tells nobody
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [*seen, await answer()]

    assert asyncio.run(scenario()) == [1] * 21 + [2]


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("ttl", {"ttl": -1}),
        ("ttl", {"ttl": "10"}),
        ("stale_while_revalidate", {"stale_while_revalidate": -1}),
        ("tags", {"tags": "one"}),
        ("tags", {"tags": ["with blank"]}),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cached(**options)
    assert caught.value.parameter == parameter


def test_a_thing_without_a_name_needs_a_prefix() -> None:
    with pytest.raises(ConfigurationError, match="key_prefix"):
        cached()(Counter(1))


@pytest.mark.parametrize("kind", [classmethod, staticmethod])
def test_the_order_of_decorators_is_said(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"must be below @{kind.__name__}"):
        cached(cache=MemoryCache())(kind(lambda: 1))


# --- methods, and functions that wrap an async def


class Shop:
    """What a method is cached of."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    @cached(key_prefix="price", key_func=lambda self, number: (self.name, number))
    def price(self, number: int) -> int:
        self.calls += 1
        return number

    @cached(key_prefix="later", key_func=lambda self, number: (self.name, number))
    async def later(self, number: int) -> int:
        self.calls += 1
        return number


def test_methods_are_cached_and_invalidated_through_their_class(default_cache: MemoryCache) -> None:
    one, other = Shop("one"), Shop("other")
    assert [one.price(7), one.price(7), other.price(7)] == [7, 7, 7]
    assert (one.calls, other.calls) == (1, 1)
    Shop.price.invalidate(one, 7)
    assert [one.price(7), other.price(7)] == [7, 7]
    assert (one.calls, other.calls) == (2, 1)


def test_an_async_function_is_invalidated_on_its_loop(default_cache: MemoryCache) -> None:
    shop = Shop("one")

    async def scenario() -> None:
        for _ in range(2):
            await shop.later(7)
        await Shop.later.ainvalidate(shop, 7)
        await shop.later(7)

    asyncio.run(scenario())
    assert shop.calls == 2


def test_an_async_invalidation_does_not_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MemoryCache()
    monkeypatch.setattr(cache, "delete", None)

    @cached(cache=cache)
    async def answer(_number: int) -> int:
        return 1

    asyncio.run(answer.ainvalidate(1))


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that returns a plain function, whatever it is given."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


async def _coroutine(number: int) -> int:
    return number


def test_a_plain_wrapper_around_an_async_def_says_what_to_do(default_cache: MemoryCache) -> None:
    around = cached()(logged(_coroutine))
    with pytest.raises(
        ConfigurationError, match=r"_coroutine is a plain function.*below the other decorator"
    ):
        around(1)


def test_a_wrapper_that_is_marked_as_a_coroutine_function_is_one(default_cache: MemoryCache) -> None:
    wrapper = logged(_coroutine)
    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(wrapper)
    else:
        wrapper._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # as asgiref does
    around = cached()(wrapper)
    assert [asyncio.run(around(1)) for _ in range(2)] == [1, 1]
    assert default_cache.stats().hits == 1
