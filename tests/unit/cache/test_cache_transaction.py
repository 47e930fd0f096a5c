"""Transactions: what they change is neither read nor stored until they end, and gone from the cache afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakeredis import FakeRedis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from mks_hardening.cache import BaseCache, MemoryCache, RedisCache, TieredCache, cached
from mks_hardening.contrib.sqlalchemy_session import after_commit, invalidate_after_commit
from mks_hardening.exceptions import ConfigurationError


@pytest.fixture(params=["memory", "redis", "tiers"])
def cache(request: pytest.FixtureRequest) -> BaseCache:
    if request.param == "memory":
        return MemoryCache()
    shared = RedisCache(FakeRedis(), store_budget=30)
    return shared if request.param == "redis" else TieredCache(MemoryCache(), shared)


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def test_what_it_changes_is_computed_and_not_stored_until_it_ends(cache: BaseCache) -> None:
    counter = Counter()
    function: Any = cached(cache=cache, key_prefix="f", tags=["t"])(counter)
    cache.set("k", "old")
    cache.set("other", "stays", tags=["u"])
    assert function() == 1
    with cache.transaction() as change:
        assert function() == 1  # not changed yet
        change.invalidate("k", tags=["t"])
        assert repr(change) == "CacheTransaction(1 keys, 1 tags)"
        assert [function(), function()] == [2, 3]
        assert function.refresh() == 4
        assert (cache.get("k"), cache.get("other")) == (None, "stays")
        assert cache.get_many(["k", "other"]) == {"other": "stays"}
        assert not cache.exists("k")
    assert cache.get("k") is None
    assert [function(), function()] == [5, 5]
    assert cache.get("other") == "stays"


def test_nothing_that_is_computed_inside_is_stored(cache: BaseCache) -> None:
    counter = Counter()
    function: Any = cached(cache=cache, key_prefix="f")(counter)
    with pytest.raises(ZeroDivisionError), cache.transaction():
        assert function() == 1  # of a change that is not said yet, or of an old snapshot
        raise ZeroDivisionError
    assert [function(), function()] == [2, 2]


def test_after_an_error_it_is_invalidated_too(cache: BaseCache) -> None:
    cache.set("k", 1, tags=["t"])
    with pytest.raises(ZeroDivisionError), cache.transaction() as change:
        change.invalidate(tags=["t"])
        raise ZeroDivisionError
    assert cache.get("k") is None


def test_a_computation_of_another_caller_that_began_before_the_end_is_not_stored(cache: BaseCache) -> None:
    lease = cache.begin("k", ["t"])
    assert lease is not None
    with cache.transaction() as change:
        change.invalidate(tags=["t"])
    cache.finish("k", lease, "old", ttl=60)
    assert cache.get("k") is None


def test_transactions_nest_and_other_contexts_do_not_see_them(cache: BaseCache) -> None:
    cache.set("k", 1, tags=["t"])
    cache.set("l", 2, tags=["u"])

    async def scenario() -> list[object]:
        seen: list[object] = []
        begun, ended = asyncio.Event(), asyncio.Event()

        async def change() -> None:
            async with cache.transaction() as outer, cache.transaction() as inner:
                outer.invalidate(tags=["t"])
                inner.invalidate(tags=["u"])
                seen.append(await cache.aget_many(["k", "l"]))
                begun.set()
                await ended.wait()

        task = asyncio.create_task(change())
        await begun.wait()
        seen.append(await cache.aget_many(["k", "l"]))
        ended.set()
        await task
        seen.append(await cache.aget_many(["k", "l"]))
        return seen

    assert asyncio.run(scenario()) == [{}, {"k": 1, "l": 2}, {}]


@pytest.mark.parametrize(
    ("parameter", "call"),
    [
        ("keys", lambda change: change.invalidate(7)),
        ("tags", lambda change: change.invalidate(tags="t")),
        ("tags", lambda change: change.invalidate(tags=["with blank"])),
    ],
)
def test_impossible_names_are_refused_and_change_nothing(
    parameter: str, call: Callable[[Any], object]
) -> None:
    change = MemoryCache().transaction()
    with pytest.raises(ConfigurationError) as caught:
        call(change)
    assert caught.value.parameter == parameter
    assert repr(change) == "CacheTransaction(0 keys, 0 tags)"


# --- sessions of SQLAlchemy --------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Any) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'db'}")
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE article (title TEXT)"))
        connection.execute(text("INSERT INTO article VALUES ('old')"))
    yield made
    made.dispose()


TITLE = text("SELECT title FROM article")
CHANGE = text("UPDATE article SET title = 'new'")


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_a_session_invalidates_at_its_end(cache: BaseCache, engine: Engine, end: str) -> None:
    with Session(engine) as session:

        @cached(cache=cache, key_prefix="title", tags=["articles"])
        def title() -> str:
            return str(session.execute(TITLE).scalar_one())

        assert title() == "old"
        session.execute(CHANGE)
        with session.begin_nested():  # the end of a savepoint is not the end
            invalidate_after_commit(session, cache=cache, tags=["articles"])
        assert title() == "new"  # its own change, which nobody else sees
        invalidate_after_commit(session, "other", cache=cache)
        getattr(session, end)()
        stored = title()
        assert stored == ("new" if end == "commit" else "old")
        assert cache.get(title.cache_key()) == stored


def test_a_scoped_session_and_two_caches(engine: Engine) -> None:
    one, other = MemoryCache(), MemoryCache()
    scoped = scoped_session(sessionmaker(engine))
    for cache in (one, other):
        cache.set("k", 1, tags=["t"])
    with scoped.begin():
        for cache in (one, other, one):
            invalidate_after_commit(scoped, "k", cache=cache)  # type: ignore[arg-type]  # a proxy
        assert [one.get("k"), other.get("k")] == [None, None]
    assert [one.exists("k"), other.exists("k")] == [False, False]
    scoped.remove()


def test_an_asynchronous_session_does_not_block_the_loop(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = MemoryCache()
    monkeypatch.setattr(cache, "invalidate_tags", lambda *_tags: pytest.fail("this blocks the loop"))
    cache.set("k", 1, tags=["t"])

    async def scenario() -> list[object]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'db'}")
        async with AsyncSession(engine) as session:
            await session.execute(text("CREATE TABLE article (title TEXT)"))
            invalidate_after_commit(session, cache=cache, tags=["t"])
            seen: list[object] = [await cache.aget("k")]
            await session.commit()
        await engine.dispose()
        cache.set("k", 2, tags=["t"])
        return [*seen, await cache.aget("k")]

    assert asyncio.run(scenario()) == [None, 2]


@pytest.mark.parametrize("what", ["session", "cache", "tags"])
def test_other_things_are_refused_and_change_nothing(engine: Engine, what: str) -> None:
    with Session(engine) as session:
        given: dict[str, Any] = {"cache": MemoryCache(), "tags": ["t"]}
        given |= {} if what == "session" else {what: "wrong"}
        with pytest.raises(ConfigurationError) as caught:
            invalidate_after_commit(object() if what == "session" else session, **given)  # type: ignore[arg-type]
        assert caught.value.parameter == what
        assert not session.in_transaction()
        assert repr(after_commit(session)) == "AfterCommit(0 waiting)"
