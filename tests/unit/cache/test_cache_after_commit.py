"""Invalidations that wait for the end of a transaction: what a reader had computed before does not come back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from mks_hardening.cache import AfterCommit, MemoryCache, cached
from mks_hardening.contrib.sqlalchemy_session import after_commit
from mks_hardening.exceptions import ConfigurationError


class Readers:
    """What the database says, kept under a tag."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.cache = MemoryCache()

    def title(self) -> str:
        def read() -> str:
            with self.engine.connect() as connection:
                return str(connection.execute(text("SELECT title FROM article")).scalar_one())

        return self.cache.get_or_compute("title", read, tags=["articles"])


@pytest.fixture
def engine(tmp_path: Any) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'db'}")
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE article (title TEXT)"))
        connection.execute(text("INSERT INTO article VALUES ('old')"))
    yield made
    made.dispose()


@pytest.fixture
def readers(engine: Engine) -> Readers:
    return Readers(engine)


CHANGE = text("UPDATE article SET title = 'new'")


def test_before_the_commit_a_reader_brings_the_old_value_back(readers: Readers) -> None:
    """What it is there for: so it goes without."""
    with Session(readers.engine) as session:
        session.execute(CHANGE)
        readers.cache.invalidate_tags("articles")
        assert readers.title() == "old"
        session.commit()
    assert readers.title() == "old"


def test_a_session_invalidates_after_its_commit(readers: Readers) -> None:
    with Session(readers.engine) as session:
        for title in ("new", "newer"):
            session.execute(text(f"UPDATE article SET title = '{title}'"))  # noqa: S608 - two words
            after_commit(session).add(readers.cache.invalidate_tags, "articles")
            readers.title()
            session.commit()
            assert readers.title() == title


def test_a_savepoint_is_not_the_end(readers: Readers) -> None:
    with Session(readers.engine) as session:
        made: list[int] = []
        with session.begin_nested():
            after_commit(session).add(made.append, 1)
        assert made == []
        session.commit()
        assert made == [1]


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_after_a_rollback_nothing_is_left_waiting(readers: Readers, end: str) -> None:
    made: list[str] = []
    with Session(readers.engine) as session:
        later = after_commit(session)
        later.add(made.append, "called")
        getattr(session, end)()
        assert made == ["called"]
        assert after_commit(session) is not later
        session.commit()
    assert made == ["called"]


def test_what_is_added_outside_of_a_transaction_waits_for_the_end_of_the_one_it_begins(
    readers: Readers,
) -> None:
    with Session(readers.engine) as session:
        after_commit(session).add(readers.cache.invalidate_tags, "articles")
        session.execute(CHANGE)
        readers.title()
        session.commit()
    assert readers.title() == "new"


def test_a_scoped_session_and_begin_blocks(readers: Readers) -> None:
    scoped = scoped_session(sessionmaker(readers.engine))
    with scoped.begin():
        scoped.execute(CHANGE)
        after_commit(scoped).add(readers.cache.invalidate_tags, "articles")  # type: ignore[arg-type]  # a proxy
        readers.title()
    assert readers.title() == "new"
    scoped.remove()


def test_two_sessions_of_one_thread_do_not_mix(readers: Readers) -> None:
    made: list[int] = []
    with Session(readers.engine) as one, Session(readers.engine) as other:
        after_commit(one).add(made.append, 1)
        after_commit(other).add(made.append, 2)
        other.commit()
        assert made == [2]
    assert made == [2, 1]


def test_other_things_are_refused() -> None:
    for wrong in (AsyncSession(), object(), None):
        with pytest.raises(ConfigurationError, match="AfterCommit"):
            after_commit(wrong)  # type: ignore[arg-type]  # on purpose


def test_plain(readers: Readers) -> None:
    with AfterCommit() as later, readers.engine.begin() as connection:
        connection.execute(CHANGE)
        later.add(readers.cache.invalidate_tags, "articles")
        readers.title()
    assert readers.title() == "new"
    assert repr(later) == "AfterCommit(0 waiting)"


def test_all_calls_are_made_once_even_where_one_raises() -> None:
    made: list[int] = []
    later = AfterCommit()
    later.add(made.append, 1)
    later.add(int, "no number")
    later.add(int, "nor this")
    later.add(made.append, 2)
    with pytest.raises(ValueError, match="no number"):
        later.run()
    later.run()
    assert made == [1, 2]
    with pytest.raises(ConfigurationError, match="function"):
        later.add(None)  # type: ignore[arg-type]  # on purpose


def test_all_calls_are_awaited_even_where_one_raises() -> None:
    async def scenario() -> None:
        later, cache = AfterCommit(), MemoryCache()
        await cache.aset("k", 1, tags=["t"])
        later.add(int, "no number")
        later.add(int, "nor this")
        later.add(cache.ainvalidate_tags, "t")
        with pytest.raises(ValueError, match="no number"):
            await later.arun()
        assert await cache.aget("k") is None
        await later.arun()

    asyncio.run(scenario())


def test_after_an_error_they_are_made_too() -> None:
    made: list[int] = []
    with pytest.raises(ZeroDivisionError), AfterCommit() as later:
        later.add(made.append, 1)
        raise ZeroDivisionError
    assert made == [1]


def test_with_asyncio() -> None:
    cache = MemoryCache()

    @cached(cache=cache, key_prefix="later")
    async def article(number: int) -> int:
        return number

    async def scenario() -> None:
        await article(7)
        cache.set("k", 1, tags=["t"])
        async with AfterCommit() as later:
            later.add(article.ainvalidate, 7)
            later.add(cache.ainvalidate_tags, "t")
            later.add(cache.delete, "none")
            assert cache.exists(article.cache_key(7))
        assert not cache.exists(article.cache_key(7))
        assert cache.get("k") is None

    asyncio.run(scenario())


def test_what_has_to_be_awaited_is_refused_without_asyncio() -> None:
    later = AfterCommit()
    later.add(MemoryCache().ainvalidate_tags, "t")
    with pytest.raises(ConfigurationError, match="async def"):
        later.run()
