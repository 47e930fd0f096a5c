"""Pages over columns whose type is a TypeDecorator, which may not say what it takes."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table, TypeDecorator, create_engine, select

from mks_hardening.db import keyset_page


class Upper(TypeDecorator[str]):
    impl = String
    cache_ok = True


def test_the_second_page_follows_the_first() -> None:
    words = Table(
        "words", MetaData(), Column("word", Upper, nullable=False), Column("id", Integer, primary_key=True)
    )
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        words.create(connection)
        connection.execute(words.insert(), [{"id": n, "word": f"w{n % 3}"} for n in range(10)])
        seen: list[int] = []
        after = None
        while True:
            order = [words.c.word.desc(), words.c.id.desc()]
            page = keyset_page(select(words.c.id), order_by=order, after=after, limit=4).fetch(connection)
            seen += page.items
            after = page.next_cursor
            if after is None:
                break
    engine.dispose()
    assert sorted(seen) == list(range(10))
