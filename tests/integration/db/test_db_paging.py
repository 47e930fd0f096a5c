"""Keyset pages over real rows on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import enum
import itertools
import subprocess
import sys
import warnings
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Engine,
    Enum,
    Float,
    ForeignKey,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    TypeDecorator,
    Uuid,
    event,
    func,
    insert,
    select,
    text,
    type_coerce,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    UserDefinedOption,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)

from db_engines import engine  # noqa: F401 - a fixture
from mks_hardening.db import InvalidCursorError, RowCount, _paged_list, hardened_engine, keyset_page
from mks_hardening.db._cursor import encode_cursor
from mks_hardening.exceptions import ConfigurationError


class Boxed(TypeDecorator[list[object]]):
    """Gives what is no data."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        return object()


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    updated_at: Mapped[datetime] = mapped_column(DateTime())
    title: Mapped[str] = mapped_column(String(50))
    note: Mapped[str | None]


@pytest.fixture
def session(engine: Engine) -> Any:  # noqa: F811 - the fixture
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        start = datetime(2024, 1, 1)  # noqa: DTZ001 - a column without zone
        opened.add_all(
            Article(id=n, updated_at=start + timedelta(days=n % 7), title=f"t{n % 3}", note=None)
            for n in range(1, 54)
        )
        opened.commit()
        yield opened


ORDERS = {
    "newest": (Article.updated_at.desc(), Article.id.desc()),
    "oldest": (Article.updated_at, Article.id),
    "mixed": (Article.title.asc(), Article.updated_at.desc(), Article.id.asc()),
    "mixed-2": (Article.updated_at.desc(), Article.title.desc(), Article.id.asc()),
    "single": (Article.id.desc(),),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("limit", [1, 7, 53, 100])
def test_pages_joined_are_the_whole_list(session: Session, order: Any, limit: int) -> None:
    expected = [article.id for article in session.scalars(select(Article).order_by(*order))]
    seen: list[int] = []
    after: str | None = None
    for _ in range(60):
        result = keyset_page(select(Article), order_by=order, after=after, limit=limit).fetch(session)
        assert 0 < len(result.items) <= limit
        seen += [article.id for article in result.items]
        after = result.next_cursor
        if after is None:
            break
    assert seen == expected


class Grade(enum.Enum):
    """In another order than the names."""

    LOW = 1
    HIGH = 2
    MIDDLE = 3


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("kind", "values"),
    [(REAL(), [0.1, 0.3, 1 / 3, 1e30]), (Enum(Grade), [*Grade])],
    ids=["real", "enumeration"],
)
def test_values_that_a_driver_gives_in_another_form(
    engine: Engine,  # noqa: F811 - the fixture
    kind: Any,
    values: list[Any],
    descending: bool,
) -> None:
    table = Table(
        "measured", MetaData(), Column("id", BigInteger, primary_key=True), Column("v", kind, nullable=False)
    )
    order = [table.c.v.desc(), table.c.id.desc()] if descending else [table.c.v, table.c.id]
    with engine.connect() as connection:
        table.create(connection)
        rows = [{"id": n, "v": values[n % len(values)]} for n in range(12)]
        connection.execute(insert(table), rows)
        seen: list[Any] = []
        after: str | None = None
        for _ in range(5):
            page = keyset_page(select(table), order_by=order, after=after, limit=5).fetch(connection)
            seen += page.items
            after = page.next_cursor
            if after is None:
                break
        assert seen == connection.execute(select(table).order_by(*order)).all()


def test_what_a_type_makes_of_a_value_does_not_matter(session: Session) -> None:
    order = [type_coerce(Article.title, Boxed()), Article.id]
    expected = session.scalars(select(Article.id).order_by(*order)).all()
    assert _all_pages(session, select(Article.id), order, 5) == expected


def test_rows_of_several_columns_keep_their_names(session: Session) -> None:
    page = keyset_page(select(Article.title, Article.note), order_by=(Article.id,), limit=2).fetch(session)
    assert [row.title for row in page.items] == ["t1", "t2"]


@pytest.mark.parametrize("title", [Article.title, func.lower(Article.title).label("lower")])
def test_what_is_distinct_is_paged_by_what_is_selected(session: Session, title: Any) -> None:
    first = keyset_page(select(title).distinct(), order_by=(title,), limit=2).fetch(session)
    assert first.items == ["t0", "t1"]
    last = keyset_page(select(title).distinct(), order_by=(title,), limit=2, after=first.next_cursor)
    assert last.fetch(session).items == ["t2"]


def test_rows_that_come_and_go_between_pages_do_no_harm(session: Session) -> None:
    order = ORDERS["single"]
    first = keyset_page(select(Article), order_by=order, limit=5).fetch(session)
    session.delete(first.items[-1])
    session.add(Article(id=1000, updated_at=datetime(2024, 1, 1), title="new", note=None))  # noqa: DTZ001
    session.flush()
    second = keyset_page(select(Article), order_by=order, after=first.next_cursor, limit=5).fetch(session)
    assert [article.id for article in second.items] == [48, 47, 46, 45, 44]


def test_one_direction_becomes_one_row_comparison(session: Session) -> None:
    first = keyset_page(select(Article), order_by=ORDERS["newest"], limit=5).fetch(session)
    second = keyset_page(select(Article), order_by=ORDERS["newest"], after=first.next_cursor, limit=5)
    assert "(articles.updated_at, articles.id) < (" in str(second.statement)
    assert " OR " not in str(second.statement)


# Selects that look alike: their pages share a statement only if nothing in them differs.
ALIKE: dict[str, list[Any]] = {
    "values": [select(Article.id).where(Article.title == title) for title in ("t0", "t1", "t2")],
    "lists": [
        select(Article.id).where(Article.title.in_(titles)) for titles in (["t0"], ["t1"], ["t0", "t2"])
    ],
    "types": [select(Article.id).where(Article.id + value > 9) for value in (1, 1.5, Decimal("2.5"))],
    "order": [select(Article.id).where(Article.id % number != 0) for number in (2, 3, 5)],
    "execution options": [
        select(Article.id).execution_options(a=number).where(Article.id > number) for number in (1, 2)
    ],
}


@pytest.mark.parametrize("selects", ALIKE.values(), ids=ALIKE)
def test_selects_that_look_alike_keep_their_own_values(session: Session, selects: list[Any]) -> None:
    for order in (ORDERS["newest"], [(Article.id + 3).desc(), Article.id], [(Article.id * -1), Article.id]):
        for _ in range(2):
            for one in selects:
                expected = session.scalars(one.order_by(*order)).all()
                assert _all_pages(session, one, list(order), 7) == expected


def test_equal_selects_share_one_statement(session: Session) -> None:
    def page(**options: Any) -> Any:
        chosen = select(Article.id).where(Article.title == options.pop("title", "t1"))
        return keyset_page(chosen, order_by=(Article.updated_at.desc(), Article.id.desc()), **options)

    first = page(limit=3).fetch(session)
    pages = [page(limit=3, after=first.next_cursor) for _ in range(2)]
    assert len({id(one._list) for one in pages}) == 1
    assert pages[0]._list is not page(limit=3, title="t2")._list
    # The public statement needs no parameters.
    assert session.scalars(pages[0].statement).all()[:3] == pages[1].fetch(session).items
    for number in range(600):
        page(limit=3, title=f"t{number}")
        page(limit=1 + number, after=first.next_cursor)
    assert len(_paged_list._lists) <= 256
    assert len(page(limit=3)._list._pages) <= 32


def test_an_option_without_a_cache_key_is_kept(session: Session) -> None:
    class Mark(UserDefinedOption):
        """Seen by an event of the session."""

    seen: list[object] = []

    def note(execution: Any) -> None:
        seen.extend(option.payload for option in execution.user_defined_options)

    event.listen(session, "do_orm_execute", note)
    for payload in ("a", "b"):
        chosen = select(Article).options(Mark(payload))
        keyset_page(chosen, order_by=(Article.id,), limit=3).fetch(session)
    assert seen == ["a", "b"]


def test_times_with_zone_survive_the_cursor(engine: Engine) -> None:  # noqa: F811
    table = Table(
        "moments",
        MetaData(),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
    )
    table.create(engine)
    moments = [datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(microseconds=n) for n in range(5)]
    with engine.begin() as connection:
        connection.execute(insert(table), [{"at": moment, "id": n} for n, moment in enumerate(moments)])
        order = (table.c.at, table.c.id)
        first = keyset_page(select(table.c.id), order_by=order, limit=2).fetch(connection)
        second = keyset_page(select(table.c.id), order_by=order, after=first.next_cursor, limit=9).fetch(
            connection
        )
    assert (first.items, second.items, second.next_cursor) == ([0, 1], [2, 3, 4], None)


def test_a_number_too_large_for_the_column_is_only_beyond_it(session: Session) -> None:
    of_sqlite = session.get_bind().dialect.name == "sqlite"
    cursor = _cursor((Article.id,), 2**40, of_sqlite=of_sqlite)
    page = keyset_page(select(Article), order_by=(Article.id,), after=cursor, limit=5)
    assert page.fetch(session).items == []


def _cursor(order: Any, *values: Any, of_sqlite: bool = False) -> str:
    keys = keyset_page(select(Article), order_by=order, limit=1)._list.keys
    return encode_cursor(keys, values, of_sqlite=of_sqlite)


BAD = {
    "empty": "",
    "not base64": "!!!",
    "not ascii": "技術",
    "not json": "AWp7",
    "too long": "A" * 5000,
    "another order": _cursor((Article.id,), 1),
    "another type": _cursor((Article.id.desc(),), "1"),
    "too large": _cursor((Article.id.desc(),), 2**70),
    "a truth value": _cursor((Article.id.desc(),), True),
    "too many": _cursor((Article.id.desc(),), 1, 2),
}


@pytest.mark.parametrize("cursor", BAD.values(), ids=BAD)
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursorError, match="cursor"):
        keyset_page(select(Article), order_by=(Article.id.desc(),), after=cursor)


@pytest.mark.parametrize("value", ["a\0b", 5, None])
def test_text_that_no_database_takes_is_refused(value: Any) -> None:
    order = (Article.title, Article.id)
    with pytest.raises(InvalidCursorError):
        keyset_page(select(Article), order_by=order, after=_cursor(order, value, 1))


def _moment(hours: int) -> datetime:
    return datetime.max.replace(tzinfo=timezone(timedelta(hours=hours)))


FORGED = [
    (REAL(), 1e308, True),
    (Float(24), -1e-308, True),
    (Float(), Decimal("1e400"), False),
    (Numeric(5, 2), Decimal("1e5000"), True),
    (Numeric(5, 2), Decimal("1e50000"), False),
    (Numeric(5, 2), Decimal("sNaN"), False),
    (Enum(Grade), "TINY", False),
    (DateTime(), date(2024, 1, 1), True),
    (DateTime(), "yesterday", False),
    (DateTime(timezone=True), _moment(23), True),
    (DateTime(timezone=True), _moment(-23), False),
    (Time(timezone=True), time(1, tzinfo=timezone(timedelta(hours=16))), False),
    (Uuid(), "0", False),
    (Boolean(), 1, False),
]


@pytest.mark.postgres
@pytest.mark.parametrize(("kind", "value", "is_taken"), FORGED)
def test_what_the_database_would_refuse_is_no_cursor(
    postgres_url: str, kind: Any, value: Any, is_taken: bool
) -> None:
    table = Table(
        "forged", MetaData(), Column("id", BigInteger, primary_key=True), Column("v", kind, nullable=False)
    )
    cursor = _cursor((table.c.v, table.c.id), value, 1)
    made = hardened_engine(postgres_url)
    with made.connect() as connection:
        table.create(connection)
        try:
            page = keyset_page(select(table), order_by=(table.c.v, table.c.id), after=cursor)
        except InvalidCursorError:
            assert not is_taken
        else:
            assert page.fetch(connection).items == []
            assert is_taken
    made.dispose()


def test_a_cursor_of_another_kind_of_database_is_refused(session: Session) -> None:
    of_sqlite = session.get_bind().dialect.name != "sqlite"
    cursor = _cursor((Article.id,), 3, of_sqlite=of_sqlite)
    with pytest.raises(InvalidCursorError, match="another kind"):
        keyset_page(select(Article), order_by=(Article.id,), after=cursor).fetch(session)


@pytest.mark.parametrize("cursor", ["after", "before"])
def test_a_signed_cursor_belongs_to_its_select(session: Session, cursor: str) -> None:
    keys = ["a secret of many bytes", "an older secret of many"]

    def page(title: Any = "t1", *, order: Any = (Article.id,), secrets: Any = keys, **options: Any) -> Any:
        chosen = select(Article.id).where(Article.title.in_([title]), Article.id > 2)
        return keyset_page(chosen, order_by=order, limit=3, signing_keys=secrets, **options)

    own = {cursor: page().fetch(session).next_cursor}
    assert page(**own).fetch(session).items == ([13, 16, 19] if cursor == "after" else [4, 7])
    # The first key signs, and any of them is accepted.
    assert page(secrets=["a new secret of many bytes", *keys], **own).fetch(session).items
    others: dict[str, dict[str, Any]] = {
        "another filter or table": {"title": "t2"},
        "another order_by": {"order": (Article.id.desc(),)},
        "signature": {"secrets": keys[1:]},
        "cannot be read": {"secrets": None},
    }
    for message, other in others.items():
        with pytest.raises(InvalidCursorError, match=message):
            page(**other, **own)
    with pytest.raises(InvalidCursorError, match="signature"):
        page(**{cursor: page(secrets=None).fetch(session).next_cursor})
    text_of = own[cursor]
    for position in range(len(text_of)):
        changed = text_of[:position] + ("A" if text_of[position] != "A" else "B") + text_of[position + 1 :]
        with contextlib.suppress(InvalidCursorError):  # the last bits of base64 may not matter
            assert page(**{cursor: changed}).fetch(session).items == page(**own).fetch(session).items


def test_a_signed_cursor_is_the_same_in_another_process() -> None:
    program = (
        "import sqlalchemy as sa\n"
        "from mks_hardening.db import hardened_engine, keyset_page\n"
        "crane = sa.table('crane', sa.column('id'), sa.column('kind'))\n"
        "with hardened_engine('sqlite://').connect() as connection:\n"
        "    connection.execute(sa.text('CREATE TABLE crane (id INTEGER, kind INTEGER)'))\n"
        "    connection.execute(sa.text('INSERT INTO crane VALUES (1, 1), (2, 2), (3, 1)'))\n"
        "    page = keyset_page(sa.select(crane).where(crane.c.kind.in_([1, 2])), order_by=[crane.c.id],\n"
        "                       limit=1, signing_keys=['a secret of many bytes'])\n"
        "    print(page.fetch(connection).next_cursor)\n"
    )
    runs = {
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


@pytest.mark.parametrize("keys", [[], ["short"], "a secret of many bytes", [5], 5])
def test_signing_keys_that_sign_nothing_are_refused(keys: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        keyset_page(select(Article), order_by=(Article.id,), signing_keys=keys)
    assert caught.value.parameter == "signing_keys"


def test_a_filter_that_has_no_text_cannot_be_signed() -> None:
    chosen = select(Article).where(Article.title == object())
    with pytest.raises(ConfigurationError, match="cannot be bound to a cursor") as caught:
        keyset_page(chosen, order_by=(Article.id,), signing_keys=["a secret of many bytes"])
    assert caught.value.parameter == "signing_keys"


def test_two_directions_at_once_are_refused(session: Session) -> None:
    cursor = keyset_page(select(Article), order_by=(Article.id,), limit=5).fetch(session).next_cursor
    with pytest.raises(ConfigurationError) as caught:
        keyset_page(select(Article), order_by=(Article.id,), after=cursor, before=cursor)
    assert caught.value.parameter == "before"


def test_rows_are_counted_up_to_a_limit(session: Session) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("ANALYZE articles"))
    page = keyset_page(select(Article).where(Article.title != "t9"), order_by=(Article.id,), limit=5)
    assert str(page.count(session)) == "53"
    assert page.count(session, limit=53) == page.count(session) == RowCount(rows=53, is_exact=True)
    found = page.count(session, limit=20)
    assert (found.rows, found.is_exact) == (20, False)
    if session.get_bind().dialect.name == "postgresql":
        assert found.estimate == 53
        assert str(found) == "more than 20 (about 53)"
    else:
        assert (found.estimate, str(found)) == (None, "more than 20")
    with pytest.raises(ConfigurationError, match="limit"):
        page.count(session, limit=0)


def test_an_estimate_claims_no_more_digits_than_it_has() -> None:
    count = RowCount(rows=10_000, is_exact=False, estimate=1_234_567)
    assert str(count) == "more than 10,000 (about 1,200,000)"


with warnings.catch_warnings():  # deprecated since SQLAlchemy 2.1, and the only way before
    warnings.simplefilter("ignore")
    DISTINCT_ON = select(Article).distinct(Article.title)


@pytest.mark.parametrize(
    ("statement", "order", "limit", "parameter"),
    [
        ("select 1", (Article.id,), 5, "select"),
        (select(Article), (), 5, "order_by"),
        (select(Article), (Article.note,), 5, "order_by"),
        (select(Article), (Article.id.nulls_last().desc(),), 5, "order_by"),
        (select(Article), (text("id"),), 5, "order_by"),
        (select(Article).order_by(Article.title), (Article.id,), 5, "select"),
        (select(Article).limit(5), (Article.id,), 5, "select"),
        (select(Article).offset(5), (Article.id,), 5, "select"),
        (select(Article.id, func.rank().over(order_by=Article.id) + 1), (Article.id,), 5, "select"),
        (select(Article), (func.rank().over(order_by=Article.id), Article.id), 5, "select"),
        (DISTINCT_ON, (Article.title, Article.id), 5, "select"),
        (select(Article.title).distinct(), (Article.id,), 5, "order_by"),
        (select(Article), (Article.id,), 0, "limit"),
        (select(Article), (Article.id,), 1001, "limit"),
        (select(Article), (Article.id,), "5", "limit"),
    ],
)
def test_impossible_parameters_are_refused(statement: Any, order: Any, limit: Any, parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        keyset_page(statement, order_by=order, limit=limit)
    assert caught.value.parameter == parameter


def test_a_column_that_may_be_null_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="order_by column note may be NULL"):
        keyset_page(select(Article), order_by=(Article.note,), limit=5)


def test_every_damage_to_a_cursor_is_noticed_or_harmless(session: Session) -> None:
    cursor = keyset_page(select(Article), order_by=ORDERS["newest"], limit=3).fetch(session).next_cursor
    assert cursor is not None
    for position, character in itertools.product(range(0, len(cursor), 3), "Az0_"):
        damaged = cursor[:position] + character + cursor[position + 1 :]
        try:
            page = keyset_page(select(Article), order_by=ORDERS["newest"], after=damaged, limit=3)
        except InvalidCursorError:
            continue
        assert len(page.fetch(session).items) <= 3
    assert session.execute(text("SELECT count(*) FROM articles")).scalar() == 53


# --- collections and groups ------------------------------------------------------------------


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[str] = mapped_column(String(10))
    books: Mapped[list[Book]] = relationship(order_by="Book.id", back_populates="shelf")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))
    pages: Mapped[int]
    shelf: Mapped[Shelf] = relationship(back_populates="books")


@pytest.fixture
def shelves(session: Session) -> Session:
    for number in range(1, 12):
        books = [Book(id=100 * number + n, pages=number * n) for n in range(number % 4)]
        session.add(Shelf(id=number, place="ab"[number % 2], books=books))
    session.commit()
    session.expunge_all()
    return session


def _all_pages(session: Session, statement: Any, order: Any, limit: int) -> list[Any]:
    seen: list[Any] = []
    after: str | None = None
    for _ in range(30):
        result = keyset_page(statement, order_by=order, after=after, limit=limit).fetch(session)
        seen += result.items
        after = result.next_cursor
        if after is None:
            return seen
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 2, 3, 20])
@pytest.mark.parametrize("load", [joinedload, selectinload, subqueryload])
def test_collections_are_loaded_with_their_page(shelves: Session, load: Any, limit: int) -> None:
    statement = select(Shelf).options(load(Shelf.books))
    seen = _all_pages(shelves, statement, (Shelf.place.desc(), Shelf.id), limit)
    assert [shelf.id for shelf in seen] == [*range(1, 12, 2), *range(2, 12, 2)]
    assert [len(shelf.books) for shelf in seen] == [shelf.id % 4 for shelf in seen]


@pytest.mark.parametrize("limit", [1, 2, 3, 20])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_groups_are_ordered_by_their_aggregates(shelves: Session, direction: str, limit: int) -> None:
    total = func.sum(Book.pages)
    statement = select(Shelf.id, total.label("total")).join(Shelf.books).group_by(Shelf.id)
    order = (getattr(total, direction)(), getattr(Shelf.id, direction)())
    expected = [tuple(row) for row in shelves.execute(statement.order_by(*order))]
    seen = _all_pages(shelves, statement, order, limit)
    assert [(row[0], row[1]) for row in seen] == expected


def test_groups_may_be_ordered_by_label_and_mixed(shelves: Session) -> None:
    count = func.count(Book.id).label("books")
    statement = select(Shelf.id, count).outerjoin(Shelf.books).group_by(Shelf.id)
    order = (count.desc(), Shelf.id.asc())
    expected = [tuple(row) for row in shelves.execute(statement.order_by(*order))]
    assert [(row[0], row[1]) for row in _all_pages(shelves, statement, order, 3)] == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 20])
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("of", ["column", "sum", "through a subquery", "mixed"])
def test_what_is_null_behind_an_outer_join_comes_last(
    shelves: Session, of: str, direction: str, limit: int
) -> None:
    if of == "sum":
        value: Any = func.sum(Book.pages)
        statement: Any = select(Shelf.id, value).outerjoin(Shelf.books).group_by(Shelf.id)
        ends: list[Any] = [Shelf.id]
    elif of == "through a subquery":
        inner = select(Shelf.id, Book.id.label("book"), Book.pages).outerjoin(Shelf.books).subquery()
        value, ends = inner.c.pages, [inner.c.id, inner.c.book]
        statement = select(inner.c.id, inner.c.book)
    else:
        value, ends = Book.pages, [Shelf.id, Book.id]
        statement = select(Shelf.id, Book.id).outerjoin(Shelf.books)
    first = getattr(value, direction)()
    if of == "mixed":
        ends[0] = Shelf.id.desc() if direction == "asc" else Shelf.id.asc()
    expected = shelves.execute(statement.order_by(first.nulls_last(), *ends)).all()
    seen = _all_pages(shelves, statement, [first, *ends], limit)
    assert [tuple(row) for row in seen] == [tuple(row) for row in expected]


def test_rows_have_the_columns_of_the_select(shelves: Session) -> None:
    statement = select(Shelf, Book.pages).join(Shelf.books)
    for shelf, pages in _all_pages(shelves, statement, (Book.pages, Book.id), 4):
        assert pages in [book.pages for book in shelf.books]


def test_keys_that_cannot_be_null_are_compared_as_one_row(session: Session) -> None:
    statement = select(Shelf.id, Book.id).outerjoin(Shelf.books)
    cursor = _cursor((func.lower(Shelf.place), Shelf.id), "a", 1)
    page = keyset_page(statement, order_by=[func.lower(Shelf.place), Shelf.id], after=cursor)
    assert "IS NULL" not in str(page.statement)
    assert "NULLS LAST" not in str(page.statement)


@pytest.mark.parametrize(
    "load", [contains_eager(Shelf.books), contains_eager(Shelf.books).load_only(Book.id)]
)
def test_a_collection_that_the_limit_would_cut_is_refused(load: Any) -> None:
    with pytest.raises(ConfigurationError, match="selectinload") as caught:
        keyset_page(select(Shelf).join(Shelf.books).options(load), order_by=(Shelf.id, Book.id))
    assert caught.value.parameter == "select"


def test_one_object_may_be_loaded_from_a_join(shelves: Session) -> None:
    statement = select(Book).join(Book.shelf).options(contains_eager(Book.shelf))
    seen = _all_pages(shelves, statement, (Shelf.place, Book.id), 3)
    assert [book.id for book in seen] == [
        book.id for book in shelves.scalars(statement.order_by(Shelf.place, Book.id))
    ]
    assert keyset_page(statement, order_by=(Book.id,)).count(shelves).rows == len(seen)


@pytest.mark.parametrize("load", [joinedload, selectinload])
def test_members_of_collections_are_not_counted(shelves: Session, load: Any) -> None:
    page = keyset_page(select(Shelf).options(load(Shelf.books)), order_by=(Shelf.id,))
    assert page.count(shelves).rows == 11


def test_an_order_that_does_not_tell_rows_apart_is_not_paged(shelves: Session) -> None:
    with pytest.raises(ConfigurationError, match="primary key"):
        keyset_page(select(Shelf), order_by=[Shelf.place], limit=2).fetch(shelves)
    with pytest.raises(ConfigurationError, match="primary key"):
        _all_pages(shelves, select(Shelf).join(Shelf.books), (Shelf.id,), 4)
