"""N+1 scenarios: eighteen ways to ask one by one, and as many that only look like it."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)

from mks_hardening.db import (
    NPlusOneError,
    QueryBudgetError,
    allow_n_plus_one,
    hardened_async_engine,
    hardened_engine,
    keyset_page,
    query_budget,
    retry_on_serialization_failure,
    watch_queries,
)
from mks_hardening.exceptions import ConfigurationError
from testbed.run_python import run_python


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    articles: Mapped[list[Article]] = relationship(back_populates="author")


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="articles")


AUTHORS = Author.__table__
ARTICLES = Article.__table__


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = hardened_engine(f"sqlite:///{tmp_path / 'watch.sqlite'}", threads=4)
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add_all(Author(id=n, name=f"a{n}") for n in range(1, 7))
        session.add_all(Article(id=n, title=f"t{n}", author_id=1 + n % 6) for n in range(1, 25))
        session.commit()
    yield made
    made.dispose()


def lazy_many_to_one(session: Session) -> None:
    for article in session.scalars(select(Article)):
        assert article.author.name


def lazy_one_to_many(session: Session) -> None:
    for author in session.scalars(select(Author)):
        assert author.articles


def lazy_in_a_comprehension(session: Session) -> None:
    assert [author.articles for author in session.scalars(select(Author)).all()]


def lazy_through_a_function(session: Session) -> None:
    def titles(author: Author) -> list[str]:
        return [article.title for article in author.articles]

    assert {author.id: titles(author) for author in session.scalars(select(Author)).all()}


def get_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.get(Author, number)


def refresh_in_a_loop(session: Session) -> None:
    for author in session.scalars(select(Author)).all():
        session.refresh(author)


def query_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.scalars(select(Article).where(Article.author_id == number)).all()


def legacy_query_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.query(Article).filter_by(author_id=number).all()


def count_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.scalar(select(func.count()).select_from(Article).where(Article.author_id == number))


def core_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.connection().execute(select(ARTICLES).where(ARTICLES.c.id == number)).all()


def text_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.execute(text("SELECT * FROM articles WHERE id = :id"), {"id": number}).all()


def literals_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.execute(select(literal_column(f"{number}")).select_from(ARTICLES)).all()


def driver_sql_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.connection().exec_driver_sql("SELECT * FROM articles WHERE id = ?", (number,)).all()


def insert_in_a_loop(session: Session) -> None:
    for number in range(100, 105):
        session.execute(insert(AUTHORS).values(id=number, name="x"))


def update_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.execute(update(AUTHORS).where(AUTHORS.c.id == number).values(name="x"))


def delete_in_a_loop(session: Session) -> None:
    for number in range(1, 6):
        session.execute(delete(ARTICLES).where(ARTICLES.c.id == number))


def flush_in_a_loop(session: Session) -> None:
    for author in session.scalars(select(Author)).all():
        author.name += "!"
        session.flush()


def commit_in_a_loop(session: Session) -> None:
    for number in range(1, 5):
        session.execute(update(AUTHORS).where(AUTHORS.c.id == number).values(name="x"))
        session.commit()


def one_by_one_recursively(session: Session) -> None:
    def walk(number: int) -> None:
        if number:
            session.execute(select(AUTHORS).where(AUTHORS.c.id == number)).all()

    list(map(walk, range(1, 6)))


def down_a_chain(session: Session) -> None:
    def walk(number: int) -> None:
        if number <= 5:
            session.execute(select(AUTHORS).where(AUTHORS.c.id == number)).all()
            walk(number + 1)

    walk(1)


def down_a_chain_of_two_functions(session: Session) -> None:
    def even(number: int) -> None:
        if number <= 10:
            odd(number + 1)

    def odd(number: int) -> None:
        session.execute(select(AUTHORS).where(AUTHORS.c.id == number)).all()
        even(number + 1)

    even(0)


FLAGGED = [
    lazy_many_to_one, lazy_one_to_many, lazy_in_a_comprehension, lazy_through_a_function, get_in_a_loop,
    refresh_in_a_loop, query_in_a_loop, legacy_query_in_a_loop, count_in_a_loop, core_in_a_loop, text_in_a_loop,
    literals_in_a_loop, driver_sql_in_a_loop, insert_in_a_loop, update_in_a_loop, delete_in_a_loop, flush_in_a_loop,
    commit_in_a_loop, one_by_one_recursively, down_a_chain, down_a_chain_of_two_functions,
]  # fmt: skip


def joined(session: Session) -> None:
    for article in session.scalars(select(Article).options(joinedload(Article.author))):
        assert article.author.name


def selected_in(session: Session) -> None:
    for author in session.scalars(select(Author).options(selectinload(Author.articles))):
        assert author.articles


def subqueried(session: Session) -> None:
    for author in session.scalars(select(Author).options(subqueryload(Author.articles))):
        assert author.articles


def selected_in_batches(session: Session) -> None:
    for author in session.scalars(
        select(Author).options(selectinload(Author.articles)).execution_options(yield_per=2)
    ):
        assert author.articles


def lists_in_batches(session: Session) -> None:
    for start in range(1, 20, 5):
        session.execute(select(ARTICLES).where(ARTICLES.c.id.in_(range(start, start + 5)))).all()


def one_plus_one(session: Session) -> None:
    article = session.scalars(select(Article)).first()
    assert article is not None
    assert article.author.name


def same_statement_on_three_lines(session: Session) -> None:
    session.execute(select(ARTICLES).where(ARTICLES.c.id == 1)).all()
    session.execute(select(ARTICLES).where(ARTICLES.c.id == 2)).all()
    session.execute(select(ARTICLES).where(ARTICLES.c.id == 3)).all()


def from_the_identity_map(session: Session) -> None:
    authors = session.scalars(select(Author)).all()
    for _ in range(5):
        assert session.get(Author, authors[0].id)


def statements_without_a_table(session: Session) -> None:
    for _ in range(5):
        session.execute(text("SELECT 1")).all()
        session.execute(select(func.now())).all()


def transactions(session: Session) -> None:
    for _ in range(5):
        with session.begin_nested():
            pass
        session.commit()


def pragmas(session: Session) -> None:
    for _ in range(5):
        session.execute(text("PRAGMA user_version")).all()


def executemany(session: Session) -> None:
    for start in (100, 200, 300):
        rows = [{"id": start + n, "name": "x"} for n in range(5)]
        session.connection().execute(insert(AUTHORS), rows)


def executemany_update(session: Session) -> None:
    statement = update(AUTHORS).where(AUTHORS.c.id == bindparam("key")).values(name=bindparam("new"))
    session.connection().execute(statement, [{"key": n, "new": "x"} for n in range(1, 6)])


def added_together(session: Session) -> None:
    session.add_all(Author(id=n, name="x") for n in range(100, 120))
    session.flush()


def different_statements(session: Session) -> None:
    for column in ("id", "name"):
        session.execute(select(literal_column(column)).select_from(AUTHORS)).all()


def two_rounds(session: Session) -> None:
    for number in (1, 2):
        session.get(Author, number)


def allowed_by_block(session: Session) -> None:
    with allow_n_plus_one():
        get_in_a_loop(session)


def allowed_by_place(session: Session) -> None:
    with allow_n_plus_one("*/test_db_query_watch.py:*"):
        get_in_a_loop(session)


def allowed_by_statement(session: Session) -> None:
    with allow_n_plus_one("select * from authors *"):
        get_in_a_loop(session)


def pages_by_hand(session: Session) -> None:
    last = 0
    while rows := session.scalars(
        select(Article.id).where(Article.id > last).order_by(Article.id).limit(5)
    ).all():
        last = rows[-1]


def pages_by_offset(session: Session) -> None:
    for offset in range(0, 25, 5):
        session.scalars(select(Article.id).order_by(Article.id).limit(5).offset(offset)).all()


def chunks_of_an_update(session: Session) -> None:
    for start in range(1, 25, 5):
        session.execute(update(ARTICLES).where(ARTICLES.c.id.between(start, start + 4)).values(title="x"))


def chunks_of_a_delete(session: Session) -> None:
    some = select(ARTICLES.c.id).limit(5).scalar_subquery()
    while session.connection().execute(delete(ARTICLES).where(ARTICLES.c.id.in_(some))).rowcount:
        pass


CLEAN = [
    joined, selected_in, subqueried, selected_in_batches, lists_in_batches, one_plus_one,
    same_statement_on_three_lines, from_the_identity_map, statements_without_a_table, transactions, pragmas,
    executemany, executemany_update, added_together, different_statements, two_rounds, allowed_by_block,
    allowed_by_place, allowed_by_statement, pages_by_hand, pages_by_offset, chunks_of_an_update, chunks_of_a_delete,
]  # fmt: skip


@pytest.mark.parametrize("scenario", FLAGGED, ids=lambda scenario: scenario.__name__)
def test_asking_one_by_one_is_found(engine: Engine, scenario: Callable[[Session], None]) -> None:
    with Session(engine) as session, watch_queries(engine) as log:
        scenario(session)
    assert len(log.n_plus_one) == 1, log.n_plus_one
    (found,) = log.n_plus_one
    assert found.times >= 4
    assert found.caller.startswith("db/watch/test_db_query_watch.py:")


@pytest.mark.parametrize("scenario", CLEAN, ids=lambda scenario: scenario.__name__)
def test_asking_well_is_not(engine: Engine, scenario: Callable[[Session], None]) -> None:
    with Session(engine) as session, watch_queries(engine, action="raise") as log:
        scenario(session)
    assert log.n_plus_one == ()


def test_the_hint_names_what_helps(engine: Engine) -> None:
    hints = {}
    for scenario in (lazy_many_to_one, query_in_a_loop, insert_in_a_loop):
        with Session(engine) as session, watch_queries(engine) as log:
            scenario(session)
        hints[scenario] = log.n_plus_one[0].hint
    assert "Article" in hints[lazy_many_to_one]
    assert "selectinload" in hints[lazy_many_to_one]
    assert "join" in hints[query_in_a_loop]
    assert "executemany" in hints[insert_in_a_loop]


def test_findings_raise_in_tests_and_are_logged_in_production(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(NPlusOneError) as caught,
        Session(engine) as session,
        watch_queries(engine, action="raise"),
    ):
        get_in_a_loop(session)
    assert str(caught.value).startswith("N+1 statements:\n")
    assert "5 times from" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).findings == caught.value.findings  # noqa: S301 - our own error
    with caplog.at_level(logging.WARNING), Session(engine) as session, watch_queries(engine, action="log"):
        get_in_a_loop(session)
    assert vars(caplog.records[-1])["times"] == 5


def test_an_error_in_the_block_is_not_covered_up(engine: Engine) -> None:
    with pytest.raises(KeyError), Session(engine) as session, watch_queries(engine, action="raise"):
        get_in_a_loop(session)
        raise KeyError


def test_statements_are_told_in_order(engine: Engine) -> None:
    with Session(engine) as session, watch_queries(engine) as log:
        session.execute(text("SELECT name FROM authors WHERE id = 17")).all()
        with pytest.raises(Exception, match="no such table"):
            session.execute(text("DELETE FROM nowhere WHERE a = 'S3CRET'"))
    assert [(one.statement, one.failed) for one in log.statements] == [
        ("select name from authors where id = ?", False),
        ("delete from nowhere where a = ?", True),
    ]
    assert "S3CRET" not in repr(log.statements)


def test_budgets(engine: Engine) -> None:
    with Session(engine) as session:
        with query_budget(2, engine):
            session.get(Author, 1)
            session.get(Author, 2)
            session.commit()
        session.expunge_all()
        with (
            pytest.raises(QueryBudgetError, match="3 statements, 2 allowed") as caught,
            query_budget(2, engine),
        ):
            get_in_a_loop_of_three(session)
    assert isinstance(caught.value, AssertionError)
    assert (caught.value.limit, len(caught.value.statements)) == (2, 3)
    assert pickle.loads(pickle.dumps(caught.value)).limit == 2  # noqa: S301 - our own error


def test_a_budget_of_a_view_in_production_is_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    @query_budget(2, engine, action="log")
    def view() -> str:
        with Session(engine) as session:
            get_in_a_loop_of_three(session)
        return "page"

    assert view() == "page"
    (record,) = map(vars, caplog.records)
    assert (record["statements"], record["limit"], record["times"]) == (3, 2, 3)
    assert record["most_frequent"].startswith("select authors.id")
    assert record["caller"].startswith("db/watch/test_db_query_watch.py:")


@pytest.mark.parametrize("form", ["mapping", "file"])
def test_a_baseline_accepts_known_findings_with_a_reason(engine: Engine, tmp_path: Path, form: str) -> None:
    (tmp_path / "baseline.toml").write_text('[accepted]\n"select authors.*" = "moves to a report"\n')
    baseline: Any = {
        "mapping": {"select authors.*": "moves to a report"},
        "file": tmp_path / "baseline.toml",
    }[form]
    with Session(engine) as session:
        with watch_queries(engine, action="raise", baseline=baseline) as log:
            get_in_a_loop(session)
        assert log.n_plus_one == ()
        assert dict(log.accepted) == {"select authors.*": "moves to a report"}
        with pytest.raises(NPlusOneError), watch_queries(engine, action="raise", baseline=baseline):
            query_in_a_loop(session)


@pytest.mark.parametrize(
    "content",
    [None, "[accepted]\na", "[other]", "accepted = 1", '[accepted]\n"a" = " "', "[accepted]\na = 1"],
)
def test_a_baseline_without_reasons_is_refused(engine: Engine, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "baseline.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="baseline") as caught:
        watch_queries(engine, baseline=str(path))
    assert caught.value.parameter == "baseline"


def get_in_a_loop_of_three(session: Session) -> None:
    for number in (1, 2, 3):
        session.get(Author, number)


def test_the_plugin_gives_budgets_for_all_hardened_engines(engine: Engine, mks_query_budget: Any) -> None:
    with pytest.raises(QueryBudgetError), Session(engine) as session, mks_query_budget(0):
        session.get(Author, 1)


@pytest.mark.parametrize("is_first", [False, True])
def test_engines_that_are_created_in_the_block_are_watched(engine: Engine, is_first: bool) -> None:
    with watch_queries() as log:
        made = hardened_engine("sqlite://")
        for watched in (made, engine) if is_first else (engine, made):
            with watched.connect() as connection:
                connection.execute(text("select 1"))
    with made.connect() as connection:
        connection.execute(text("select 1"))
    assert [one.statement for one in log.statements] == ["select ?"] * 2
    made.dispose()


def test_an_engine_that_is_given_twice_counts_once(engine: Engine) -> None:
    with watch_queries(engine, engine) as log, engine.connect() as connection:
        connection.execute(text("select 1"))
    assert len(log.statements) == 1


def test_a_block_without_any_engine_is_refused() -> None:
    """In a process of its own: engines of other tests may still exist."""
    run_python(
        """
        from mks_hardening.db import query_budget
        from mks_hardening.exceptions import ConfigurationError

        try:
            with query_budget(0):
                pass
        except ConfigurationError as error:
            assert error.parameter == "engines"
        else:
            raise AssertionError("not refused")
        """
    )


class LostRaceError(Exception):
    """As drivers of PostgreSQL have it."""

    sqlstate = "40001"


@pytest.mark.parametrize("world", ["def", "async def"])
def test_a_transaction_that_is_run_again_counts_once(engine: Engine, world: str) -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        with Session(engine) as session:
            session.execute(select(Author.id).where(Author.name == "a"))  # its rows are never read
            session.execute(update(Author).values(name=f"n{len(tries)}"))
            if len(tries) % 5:
                raise LostRaceError

    async def later() -> None:
        work()

    again = retry_on_serialization_failure(sleep=lambda _seconds: None)
    with watch_queries(engine, action="raise") as log, query_budget(2, engine):
        if world == "def":
            again(work)()
        else:
            asyncio.run(again(later)())
    assert len(tries) == 5
    assert [one.statement.partition(" ")[0] for one in log.statements] == ["select", "update"]


def test_a_transaction_that_was_given_up_counts_with_its_last_try(engine: Engine) -> None:
    @retry_on_serialization_failure(sleep=lambda _seconds: None)
    def work() -> None:
        with engine.connect() as connection:
            connection.execute(select(Author.id)).all()
        raise LostRaceError

    with watch_queries(engine) as log:
        for _ in range(3):  # which is N+1 all the same
            with pytest.raises(LostRaceError):
                work()
    assert len(log.statements) == 3
    assert [finding.times for finding in log.n_plus_one] == [3]


def test_all_pages_of_a_list_are_no_finding(engine: Engine) -> None:
    def pages(session: Session, of: Any, limit: int) -> None:
        after = None
        while True:
            page = keyset_page(of, order_by=[Article.id], after=after, limit=limit).fetch(session)
            after = page.next_cursor
            if after is None:
                return

    with Session(engine) as session:
        with watch_queries(engine, action="raise"):
            pages(session, select(Article).options(selectinload(Article.author)), 1)
        # But one list for each of many is.
        authors = session.scalars(select(Author.id)).all()
        with watch_queries(engine) as log:
            for author in authors:
                pages(session, select(Article).where(Article.author_id == author), 1000)
        assert [finding.times for finding in log.n_plus_one] == [len(authors)]


def test_other_threads_are_not_counted(engine: Engine) -> None:
    def other() -> None:
        with Session(engine) as session:
            get_in_a_loop(session)

    with query_budget(0, engine) as log:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert log.statements == ()


@pytest.mark.parametrize("keep", [True, False], ids=["still open", "dropped"])
@pytest.mark.parametrize("read", [0, 1])
def test_a_result_that_nobody_read_to_its_end_counts(engine: Engine, keep: bool, read: int) -> None:
    kept: list[object] = []
    with Session(engine) as session:
        with watch_queries(engine) as log:
            for number in range(3):
                result = session.execute(text("SELECT id, name FROM authors WHERE id > :a"), {"a": number})
                assert all(result.fetchone() for _ in range(read))
                kept += [result] * keep
                del result
        with pytest.raises(QueryBudgetError, match="1 statements, 0 allowed"), query_budget(0, engine):
            kept.append(session.execute(text("SELECT name FROM authors")))
        with watch_queries(engine, action="raise") as later:
            kept.clear()  # ends outside the window that it began in
        with watch_queries(engine, action="raise") as spared, allow_n_plus_one():
            kept = [session.execute(text("SELECT name FROM authors")) for _ in range(3)]
    assert [(one.statement, one.rows) for one in log.statements] == [
        ("select id, name from authors where id > ?", read)
    ] * 3
    assert [found.times for found in log.n_plus_one] == [3]
    assert later.statements == ()
    assert len(spared.statements) == 3


def test_windows_nest_and_leave_nothing_behind(engine: Engine) -> None:
    with watch_queries(engine) as outer, Session(engine) as session:
        session.get(Author, 1)
        with watch_queries(engine) as inner:
            session.get(Author, 2)
        session.get(Author, 3)
    assert (len(outer.statements), len(inner.statements)) == (3, 1)
    assert "execution_ctx_cls" not in vars(engine.dialect)


def test_a_list_and_a_second_condition(engine: Engine) -> None:
    with Session(engine) as session, watch_queries(engine) as log:
        for number in range(4):
            session.execute(
                select(ARTICLES).where(ARTICLES.c.id == number, ARTICLES.c.author_id.in_([1, 2]))
            ).all()
    assert [found.times for found in log.n_plus_one] == [4]


@pytest.mark.postgres
def test_chunks_for_any_are_batches(postgres_url: str) -> None:
    engine = hardened_engine(postgres_url)
    with engine.begin() as connection, watch_queries(engine, action="raise"):
        connection.exec_driver_sql("CREATE TABLE t (a int)")
        for start in range(0, 100, 20):
            connection.execute(
                text("SELECT * FROM t WHERE a = ANY(:ids)"), {"ids": list(range(start, start + 20))}
            )
    engine.dispose()


def test_decorated_functions_are_watched_at_each_call(engine: Engine) -> None:
    @query_budget(2, engine)
    def ask(numbers: list[int]) -> int:
        with Session(engine) as session:
            for number in numbers:
                session.get(Author, number)
        return len(numbers)

    assert ask([1, 2]) == ask([3, 4]) == 2
    with pytest.raises(QueryBudgetError):
        ask([1, 2, 3])
    assert ask([5]) == 1


def test_decorated_coroutine_functions_are_watched_to_their_end() -> None:
    engine = hardened_async_engine("sqlite+aiosqlite://")

    async def ask(times: int) -> int:
        async with engine.connect() as connection:
            for _ in range(times):
                await connection.execute(text("SELECT name FROM sqlite_master WHERE name = 'x'"))
        return times

    class Asker:
        async def __call__(self, times: int) -> int:
            return await ask(times)

    budgeted = query_budget(2, engine)(ask)
    watched = watch_queries(engine, action="raise")(ask)
    allowed = watch_queries(engine, action="raise")(allow_n_plus_one()(ask))

    async def run() -> None:
        assert await budgeted(2) == 2
        with pytest.raises(QueryBudgetError):
            await budgeted(3)
        # A plain function around it, as other decorators make, and an object that is called.
        for other in (lambda times: ask(times), Asker()):  # noqa: PLW0108 - this is what is meant
            assert await query_budget(2, engine)(other)(2) == 2
            with pytest.raises(QueryBudgetError):
                await query_budget(2, engine)(other)(3)
        with pytest.raises(NPlusOneError):
            await watched(3)
        assert await allowed(3) == 3
        both = await asyncio.gather(budgeted(2), budgeted(3), return_exceptions=True)
        assert both[0] == 2
        assert isinstance(both[1], QueryBudgetError)
        await engine.dispose()

    asyncio.run(run())


def test_a_generator_is_not_decorated(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="generator"):

        @query_budget(1, engine)
        def ask() -> Iterator[int]:
            yield 1


@pytest.mark.postgres
def test_asyncio_callers_are_found_behind_the_greenlet(postgres_url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def scenario() -> Any:
        engine = create_async_engine(postgres_url)
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TABLE t (a int)"))
            with watch_queries(engine) as log:
                for number in range(4):
                    await connection.execute(text("SELECT * FROM t WHERE a = :a"), {"a": number})
        await engine.dispose()
        return log

    (found,) = asyncio.run(scenario()).n_plus_one
    assert found.caller.startswith("db/watch/test_db_query_watch.py:")


@pytest.mark.parametrize(
    ("parameter", "make"),
    [
        ("action", lambda engine: watch_queries(engine, action="explode")),  # type: ignore[arg-type]
        ("threshold", lambda engine: watch_queries(engine, threshold=1)),
        ("limit", lambda engine: query_budget(-1, engine)),
        ("action", lambda engine: query_budget(1, engine, action="collect")),  # type: ignore[arg-type]
        ("limit", lambda engine: query_budget("3", engine)),  # type: ignore[arg-type]
        ("engine", lambda _engine: watch_queries("sqlite://")),  # type: ignore[arg-type]
    ],
)
def test_impossible_parameters_are_refused(engine: Engine, parameter: str, make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught, make(engine):
        pass
    assert caught.value.parameter == parameter
