"""Cost of the database monitors, and scaling of search and paging, on SQLite.

    python benchmarks/db.py [URL of a PostgreSQL database]

Medians and minima over interleaved rounds; the engines are compared within one run. With PostgreSQL, it also
measures the cost of checking a connection at each checkout, and the search there.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from figures import keep
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
    text,
)

from mks_hardening.db import (
    SearchIndex,
    SlowQueryMonitor,
    fingerprint,
    hardened_engine,
    keyset_page,
    watch_queries,
)
from mks_hardening.db._cursor import write_cursor

WORDS = [
    "技術",
    "資料",
    "杭打ち",
    "コンクリート",
    "足場",
    "安全",
    "品質",
    "積算",
    "盛土",
    "鉄筋",
    "型枠",
    "養生",
    "測量",
]
ROWS = Table(
    "rows",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("u", Integer, nullable=False, index=True),
    Column("title", String, nullable=False),
)


def interleaved(
    contenders: dict[str, Callable[[], Any]], *, calls: int, rounds: int = 25
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: min(values) for name, values in times.items()}


def show(title: str, figures: dict[str, float]) -> None:
    keep(title, figures)
    base = next(iter(figures.values()))
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:44} {value:10.2f} µs {value / base:7.2f} x")


def overhead(folder: Path) -> None:
    statement = text("SELECT 1 WHERE 1 = :a")
    engines: dict[str, Engine] = {}
    for name in ("bare", "SlowQueryMonitor", "two listeners that do nothing", "watch_queries"):
        engines[name] = create_engine(f"sqlite:///{folder / name.replace(' ', '_')}")
    SlowQueryMonitor(engines["SlowQueryMonitor"], threshold=60).install()
    event.listen(engines["two listeners that do nothing"], "before_cursor_execute", lambda *_: None)
    event.listen(engines["two listeners that do nothing"], "after_cursor_execute", lambda *_: None)
    connections = {name: engine.connect() for name, engine in engines.items()}

    def asking(name: str) -> Callable[[], Any]:
        connection = connections[name]
        return lambda: connection.execute(statement, {"a": 1}).all()

    with watch_queries(engines["watch_queries"]):
        show(
            "One statement on SQLite (minimum)",
            interleaved({name: asking(name) for name in engines}, calls=500),
        )
    for connection in connections.values():
        connection.close()


def checkouts(url: str) -> None:
    """Measure the round trip with which each checkout checks that its connection works."""
    engines = {ping: hardened_engine(url, pool_pre_ping=ping) for ping in (False, True)}

    def using(engine: Engine) -> Callable[[], Any]:
        def use() -> None:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1")).scalar()

        return use

    def taking(engine: Engine) -> Callable[[], Any]:
        return lambda: engine.connect().close()

    for title, contender in (
        ("A connection from the pool (minimum)", taking),
        ("The same with one statement", using),
    ):
        show(
            title,
            interleaved(
                {
                    "not asked": contender(engines[False]),
                    "asked whether it lives": contender(engines[True]),
                },
                calls=100,
            ),
        )
    for engine in engines.values():
        engine.dispose()


def fingerprints() -> None:
    short = "SELECT a, b FROM t WHERE id = %(id_1)s AND state IN ('open', 'held') ORDER BY a LIMIT 20"
    long = short.replace("'open'", ", ".join(f"'value {number}'" for number in range(500)))
    numbers = iter(range(10**9))
    show(
        "A fingerprint",
        {
            **interleaved({"seen before": lambda: fingerprint(short)}, calls=5_000),
            **interleaved(
                {
                    f"new text, {len(short)} characters": lambda: fingerprint(f"{short} {next(numbers)}"),
                    f"new text, {len(long)} characters": lambda: fingerprint(f"{long} {next(numbers)}"),
                    f"new words, {len(short)} characters": lambda: fingerprint(f"{short} w{next(numbers)}"),
                },
                calls=50,
            ),
        },
    )


def _all(connection: Connection, statement: Any) -> Any:
    return connection.execute(statement).all()


def paging(folder: Path) -> None:
    engine = hardened_engine(f"sqlite:///{folder / 'paging'}")
    ROWS.create(engine)
    generator = random.Random(7)
    with engine.begin() as connection:
        rows = [{"id": n, "u": generator.randrange(50_000), "title": "x"} for n in range(200_000)]
        connection.execute(insert(ROWS), rows)
        connection.execute(text("CREATE INDEX by_u ON rows (u DESC, id DESC)"))
        order = (ROWS.c.u.desc(), ROWS.c.id.desc())
        show(
            "The first page of 50",
            interleaved(
                {
                    "OFFSET, built for each page": lambda: connection.execute(
                        select(ROWS.c.id).order_by(*order).offset(0).limit(50)
                    ).all(),
                    "keyset_page, built for each page": lambda: keyset_page(
                        select(ROWS.c.id), order_by=order, limit=50
                    ).fetch(connection),
                    "OFFSET, built once": partial(
                        _all, connection, select(ROWS.c.id).order_by(*order).limit(50)
                    ),
                },
                calls=20,
                rounds=15,
            ),
        )
        for depth in (1_000, 100_000, 199_000):
            at = connection.execute(
                select(ROWS.c.u, ROWS.c.id).order_by(*order).offset(depth - 1).limit(1)
            ).one()
            keys = keyset_page(select(ROWS.c.id), order_by=order, limit=50)._list.keys
            cursor = write_cursor(keys, list(at), of_sqlite=True)
            offset = select(ROWS.c.id).order_by(*order).offset(depth).limit(50)

            def built(depth: int = depth) -> Any:
                return connection.execute(select(ROWS.c.id).order_by(*order).offset(depth).limit(50)).all()

            show(
                f"A page of 50 at {depth:,}",
                interleaved(
                    {
                        "keyset_page": lambda cursor=cursor: keyset_page(  # type: ignore[misc]
                            select(ROWS.c.id), order_by=order, after=cursor, limit=50
                        ).fetch(connection),
                        "OFFSET, built once": lambda offset=offset: connection.execute(offset).all(),  # type: ignore[misc]
                        "OFFSET, built for each page": built,
                    },
                    calls=5,
                    rounds=7,
                ),
            )
    engine.dispose()


def search(url: str) -> None:
    """Search 100,000 documents for a rare, a frequent and a long word, beside ``LIKE`` in no order."""
    engine = hardened_engine(url)
    generator = random.Random(7)
    index = SearchIndex("mks_bench_search")
    articles = Table(
        "mks_bench_articles", MetaData(), Column("id", Integer, primary_key=True), Column("body", String)
    )
    rows = [
        (
            number,
            WORDS[number % 13],
            "の".join(generator.choices(WORDS, k=30)) + "溶射" * (number % 1000 == 0),
        )
        for number in range(100_000)
    ]
    print(f"\n## Search with {engine.dialect.name}")
    try:
        with engine.begin() as connection:
            articles.create(connection)
            connection.execute(insert(articles), [{"id": number, "body": body} for number, _, body in rows])
            start, used = time.perf_counter(), time.process_time()
            index.rebuild(connection, rows)
            took, used = time.perf_counter() - start, time.process_time() - used
            print(
                f"\n{len(rows) / took:,.0f} documents indexed a second, "
                f"{1e6 * used / len(rows):.0f} µs of this process each"
            )
        with engine.connect() as connection:
            for word in ("溶射", "技術", "コンクリート", '"技術の資料"'):
                like = select(articles.c.id).where(articles.c.body.contains(word.strip('"'))).limit(50)
                show(
                    f"The first 50 with {word}",
                    interleaved(
                        {
                            "SearchIndex": lambda word=word: index.search(connection, word),  # type: ignore[misc]
                            "LIKE, in no order": lambda like=like: connection.execute(like).all(),  # type: ignore[misc]
                        },
                        calls=3,
                        rounds=9,
                    ),
                )
    finally:
        with engine.begin() as connection:
            index.drop(connection)
            articles.drop(connection, checkfirst=True)
        engine.dispose()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overhead(folder)
        fingerprints()
        paging(folder)
        search(f"sqlite:///{folder / 'search'}")
    for url in sys.argv[1:]:
        checkouts(url)
        search(url)


if __name__ == "__main__":
    main()
