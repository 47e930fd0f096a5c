"""A reader who walks through a list in both directions while it changes, against a sorted list in Python."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, ForeignKey, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship

from db_engines import engine  # noqa: F401 - a fixture
from mks_hardening.db import keyset_page


class Base(DeclarativeBase):
    pass


class Work(Base):
    __tablename__ = "works"
    id: Mapped[int] = mapped_column(primary_key=True)
    grade: Mapped[int | None]
    place: Mapped[str | None]
    kind: Mapped[int]
    photos: Mapped[list[Photo]] = relationship(order_by="Photo.id")


class Photo(Base):
    __tablename__ = "photos"
    id: Mapped[int] = mapped_column(primary_key=True)
    work_id: Mapped[int] = mapped_column(ForeignKey("works.id"))


COLUMNS = {"grade": Work.grade, "place": Work.place, "kind": Work.kind, "id": Work.id}
ORDERS = st.fixed_dictionaries(
    {
        "columns": st.permutations(["grade", "place", "kind"]).flatmap(
            lambda names: st.integers(0, 3).map(lambda number: [*names[:number], "id"])
        ),
        "descending": st.tuples(*[st.booleans()] * 4),
        "nulls_first": st.tuples(*[st.booleans()] * 4),
    }
)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(0, 30),
        "grade": st.none() | st.integers(0, 2),
        "place": st.none() | st.sampled_from("abc"),
        "kind": st.integers(0, 1),
    }
)
LIMITS = st.integers(1, 5)


class Walk(RuleBasedStateMachine):
    """One reader; the model is a list of rows in order."""

    def __init__(self, engine: Engine) -> None:  # noqa: F811 - not the fixture
        super().__init__()
        self.session = Session(engine)
        self.rows: dict[int, dict[str, Any]] = {}
        self.before: Any = None
        self.after: Any = None
        self.first_key: Any = None
        self.last_key: Any = None

    @initialize(order=ORDERS, rows=st.lists(ROWS, max_size=20), signed=st.booleans(), whole=st.booleans())
    def begin(self, order: dict[str, Any], rows: list[dict[str, Any]], signed: bool, whole: bool) -> None:
        self.order = order
        self.signing_keys = ["a secret of many bytes"] if signed else None
        self.select = (
            select(Work).where(Work.kind >= 0).options(*([joinedload(Work.photos)] if whole else []))
        )
        self.session.execute(delete(Photo))
        self.session.execute(delete(Work))
        for row in rows:
            self.add(row)

    @rule(row=ROWS)
    def add(self, row: dict[str, Any]) -> None:
        if row["id"] not in self.rows:
            self.rows[row["id"]] = row
            self.session.execute(insert(Work), [row])
            photos = [{"id": 10 * row["id"] + n, "work_id": row["id"]} for n in range(row["id"] % 3)]
            if photos:
                self.session.execute(insert(Photo), photos)

    @rule(chosen=st.randoms(use_true_random=False))
    @precondition(lambda self: self.rows)
    def remove(self, chosen: Any) -> None:
        gone = chosen.choice(sorted(self.rows))
        del self.rows[gone]
        self.session.execute(delete(Photo).where(Photo.work_id == gone))
        self.session.execute(delete(Work).where(Work.id == gone))

    @rule(limit=LIMITS)
    def read_first(self, limit: int) -> None:
        expected = self.keys()
        self.check(self.page(limit).fetch(self.session), expected[:limit])
        assert self.before is None
        assert (self.after is None) is (len(expected) <= limit)

    @rule(limit=LIMITS)
    @precondition(lambda self: self.after is not None)
    def read_next(self, limit: int) -> None:
        expected = [key for key in self.keys() if key > self.last_key]
        self.check(self.page(limit, after=self.after).fetch(self.session), expected[:limit])
        assert (self.after is None) is (len(expected) <= limit)
        assert (self.before is None) is (not expected)

    @rule(limit=LIMITS)
    @precondition(lambda self: self.before is not None)
    def read_previous(self, limit: int) -> None:
        expected = [key for key in self.keys() if key < self.first_key]
        self.check(self.page(limit, before=self.before).fetch(self.session), expected[-limit:])
        assert (self.before is None) is (len(expected) <= limit)
        assert (self.after is None) is (not expected)

    @rule(limit=LIMITS)
    def count(self, limit: int) -> None:
        found = self.page(1).count(self.session, limit=limit)
        assert (found.rows, found.is_exact) == (min(limit, len(self.rows)), len(self.rows) <= limit)

    def page(self, limit: int, **cursor: str) -> Any:
        order: list[Any] = []
        for name, descending, nulls_first in self.directions():
            column: Any = COLUMNS[name].desc() if descending else COLUMNS[name].asc()
            if name in {"grade", "place"}:
                column = column.nulls_first() if nulls_first else column.nulls_last()
            order.append(column)
        return keyset_page(self.select, order_by=order, limit=limit, signing_keys=self.signing_keys, **cursor)

    def directions(self) -> Any:
        return zip(self.order["columns"], self.order["descending"], self.order["nulls_first"], strict=False)

    def keys(self) -> list[tuple[Any, ...]]:
        return sorted(map(self.key, self.rows.values()))

    def key(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """Sort key, of which the last part is the id."""
        parts: list[tuple[int, int]] = []
        for name, descending, nulls_first in self.directions():
            value = row[name]
            number = ord(value) if isinstance(value, str) else value
            if number is None:
                parts.append((0 if nulls_first else 2, 0))
            else:
                parts.append((1, -number if descending else number))
        return (*parts, row["id"])

    def check(self, result: Any, expected: list[tuple[Any, ...]]) -> None:
        assert [work.id for work in result.items] == [key[-1] for key in expected]
        self.session.expire_all()
        self.before, self.after = result.previous_cursor, result.next_cursor
        if expected:
            self.first_key, self.last_key = expected[0], expected[-1]

    def teardown(self) -> None:
        self.session.close()


def test_pages_in_both_directions_are_those_of_a_sorted_list(engine: Engine) -> None:  # noqa: F811 - the fixture
    Base.metadata.create_all(engine)
    machine: Any = lambda: Walk(engine)  # noqa: E731 - the stub asks for a class
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=15, deadline=None)
    )
