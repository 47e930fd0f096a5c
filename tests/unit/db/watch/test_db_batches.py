"""Which executions of one statement are batches, and which ask one by one for what a list could have asked."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.db.watch._batches import ValueReader
from mks_hardening.db.watch.n_plus_one import StatementGroup

S = "postgresql"
L = "sqlite"
ONE_BY_ONE: list[tuple[str, str, list[Any]]] = [
    (S, "SELECT * FROM t WHERE a = %s AND s IN ('x', 'y')", [(1,), (2,), (3,)]),
    (S, "SELECT * FROM t WHERE a = %s AND s IN (%s, %s)", [(1, "x", "y"), (2, "x", "y"), (3, "x", "y")]),
    (S, "SELECT * FROM t WHERE s IN (%s, %s) AND a = %s", [("x", "y", 1), ("x", "y", 2), ("x", "z", 3)]),
    (S, "SELECT * FROM t WHERE a IN (%s) AND b = %s", [(1, 7), (2, 7), (3, 7)]),
    (S, "SELECT * FROM t WHERE a = %s AND s IN (%s, %s) AND b IN (%s)", [(n, "x", "y", 7) for n in range(3)]),
    (S, "SELECT * FROM t WHERE a = ANY(%s)", [([1],), ([2],), ([3],)]),
    (S, "SELECT * FROM t WHERE a = ANY(%(a)s) AND b = %(b)s", [{"a": [1, 2], "b": n} for n in range(3)]),
    (S, "SELECT * FROM t WHERE a = $2 AND s IN ($1, $3)", [("x", n, "y") for n in range(3)]),
    (
        L,
        "SELECT * FROM t WHERE a = :a AND s IN (:s_1, :s_2)",
        [{"a": n, "s_1": 1, "s_2": 2} for n in range(3)],
    ),
    (L, "SELECT * FROM t WHERE a = ?2 AND s IN (?1, ?3)", [("x", n, "y") for n in range(3)]),
    (S, "SELECT * FROM t WHERE a IN (SELECT b, c FROM u WHERE d = %s)", [(1,), (2,), (3,)]),
    (S, "INSERT INTO t (a, b) VALUES (%s, %s)", [(1, 2), (2, 2), (3, 2)]),
    (S, "INSERT INTO t (a, tags) VALUES (%s, %s)", [(n, ["x", "y"]) for n in range(3)]),
    (S, "SELECT * FROM t WHERE a = coalesce(%s, %s)", [(1, 2), (2, 3), (3, 4)]),
    (
        S,
        "SELECT * FROM t JOIN u ON u.b = t.b AND u.a = %s WHERE s IN (%s, %s)",
        [(n, 1, 2) for n in range(3)],
    ),
    (S, "WITH x AS (SELECT * FROM t WHERE a = %s) SELECT * FROM x WHERE s IN (1, 2)", [(1,), (2,), (3,)]),
    (S, "SELECT * FROM (SELECT * FROM t WHERE a = %s) y WHERE s IN (1, 2)", [(1,), (2,), (3,)]),
    (S, "SELECT b FROM t WHERE a = %s UNION SELECT b FROM t WHERE s IN (1, 2)", [(1,), (2,), (3,)]),
    (S, "SELECT (SELECT b FROM t WHERE a = %s) FROM u WHERE s IN (1, 2)", [(1,), (2,), (3,)]),
    (S, "UPDATE t SET b = (SELECT c FROM u WHERE a = %s) WHERE s IN (1, 2)", [(1,), (2,), (3,)]),
    (S, "UPDATE t SET b = %s FROM u WHERE u.a = %s AND s IN (1, 2)", [(7, n) for n in range(3)]),
    (S, "SELECT * FROM t WHERE a = ANY('{1}')", [(), (), ()]),
    (S, "INSERT INTO t (doc) VALUES (%s)", [('{"a": 1, "b": 2}',), ("{}",), ("{1,2}",)]),
]
BATCHES: list[tuple[str, str, list[Any]]] = [
    (S, "SELECT * FROM t WHERE a IN (%s, %s)", [(1, 2), (3, 4), (5, 6)]),
    (S, "SELECT * FROM t WHERE tenant = %s AND a IN (%s, %s)", [(7, 1, 2), (7, 3, 4), (7, 5, 6)]),
    (S, "SELECT * FROM t WHERE a = ANY(%s)", [([1, 2],), ([3, 4],), ([5, 6],)]),
    (S, "SELECT * FROM t WHERE a = ANY(%(ids)s::int[])", [{"ids": [n, n + 1]} for n in range(3)]),
    (S, "SELECT * FROM t WHERE a = ANY(ARRAY[%s, %s])", [(1, 2), (3, 4), (5, 6)]),
    (S, "SELECT * FROM t WHERE a IN %s", [((1, 2),), ((3, 4),), ((5, 6),)]),
    (S, "SELECT * FROM t WHERE (a, b) IN ((%s, %s), (%s, %s))", [(n, 1, n, 2) for n in range(3)]),
    (S, "SELECT * FROM t JOIN unnest(%s) AS u (a) USING (a)", [([n, n + 1],) for n in range(3)]),
    (S, "UPDATE t SET seen = %s WHERE a IN (%s, %s)", [(n, n, n + 1) for n in range(3)]),
    (S, "INSERT INTO t (a, b) VALUES (%s, %s), (%s, %s)", [(n, 1, n, 2) for n in range(3)]),
    (L, "DELETE FROM t WHERE a IN (?, ?)", [(1, 2), (3, 4), (5, 6)]),
    (L, "SELECT * FROM t WHERE a IN (1, 2)", [(), (), ()]),
    (S, "SELECT * FROM t WHERE a = ANY('{1,2}')", [(), (), ()]),
    (S, "SELECT * FROM t WHERE a = ANY(%s)", [("{1,2}",), ("{3,4}",), ("{5,6}",)]),
    (S, "SELECT %s AS asked_at, b FROM t WHERE a IN (%s, %s)", [(n, n, n + 1) for n in range(3)]),
    (S, "UPDATE t SET b = coalesce(%s, 1) WHERE a IN (%s, %s)", [(n, n, n + 1) for n in range(3)]),
    (
        S,
        "INSERT INTO t (a) VALUES (%s), (%s) ON CONFLICT (a) DO UPDATE SET b = %s",
        [(n, n + 1, n) for n in range(3)],
    ),
]
# Several rows each, and the values differ only in the bounds of a range; as N+1, they never have more than one row.
PAGES: list[tuple[str, str, list[Any]]] = [
    (S, "SELECT * FROM t WHERE id > %s ORDER BY id LIMIT %s", [(0, 50), (50, 50), (100, 7)]),
    (
        S,
        "SELECT * FROM t WHERE a = %(a)s AND id > %(id)s LIMIT 50",
        [{"a": 7, "id": n} for n in (0, 50, 100)],
    ),
    (
        S,
        "SELECT * FROM t WHERE (u, id) < (%s, %s) ORDER BY u DESC, id DESC LIMIT 50",
        [(9, 1), (8, 7), (3, 2)],
    ),
    (S, "SELECT * FROM t WHERE u < %s OR (u = %s AND id < %s) LIMIT 50", [(9, 9, 1), (8, 8, 7), (3, 3, 2)]),
    (S, "SELECT * FROM t ORDER BY id FETCH FIRST 50 ROWS ONLY OFFSET %s", [(0,), (50,), (100,)]),
    (L, "SELECT * FROM t ORDER BY id LIMIT ? OFFSET ?", [(50, 0), (50, 50), (50, 100)]),
    (S, "UPDATE t SET a = b WHERE id BETWEEN %s AND %s", [(0, 49), (50, 99), (100, 149)]),
    (S, "UPDATE t SET a = %s WHERE id >= %s AND id < %s AND b = 1", [(n, n, n + 50) for n in (0, 50, 100)]),
    (S, "INSERT INTO u SELECT * FROM t WHERE id BETWEEN 1 AND 50", [(), (), ()]),
    (S, "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE old LIMIT 1000)", [(), (), ()]),
    (S, "SELECT id FROM t WHERE state = %s LIMIT 50 FOR UPDATE SKIP LOCKED", [("new",)] * 3),
]
ONE_BY_ONE_ALL_THE_SAME: list[tuple[str, str, list[Any]]] = [
    (S, "SELECT * FROM t WHERE parent = %s AND id > %s LIMIT 5", [(1, 0), (2, 0), (3, 0)]),
    (S, "SELECT * FROM t WHERE parent = %s ORDER BY id LIMIT 5", [(1,), (2,), (3,)]),
    (S, "SELECT * FROM t WHERE parent = %s AND at BETWEEN %s AND %s", [(n, 1, 2) for n in range(3)]),
    (S, "SELECT * FROM t WHERE id > %s", [(1,), (2,), (3,)]),
    (S, "SELECT * FROM t ORDER BY id LIMIT 5", [(), (), ()]),
    (S, "DELETE FROM t WHERE parent = %s AND id IN (SELECT id FROM t LIMIT 9)", [(1,), (2,), (3,)]),
    (L, "UPDATE t SET a = 1 WHERE parent = ? AND at >= ? AND at < ?", [(n, 1, 2) for n in range(3)]),
]


def _count(dialect: str, sql: str, executions: list[Any], rows: int = 2) -> int:
    group = StatementGroup(statement=None, hint="")  # type: ignore[arg-type] # only counts here
    reader = ValueReader(sql, dialect)
    for parameters in executions:
        group.add(reader.read(parameters), rows)
    return group.count


@pytest.mark.parametrize(("dialect", "sql", "executions"), ONE_BY_ONE)
def test_one_by_one_is_counted(dialect: str, sql: str, executions: list[Any]) -> None:
    assert _count(dialect, sql, executions) == len(executions)


@pytest.mark.parametrize(("dialect", "sql", "executions"), BATCHES)
def test_batches_are_not(dialect: str, sql: str, executions: list[Any]) -> None:
    assert _count(dialect, sql, executions) == 0


@pytest.mark.parametrize(("dialect", "sql", "executions"), PAGES)
def test_pages_and_chunks_are_not_unless_they_have_one_row_each(
    dialect: str, sql: str, executions: list[Any]
) -> None:
    assert _count(dialect, sql, executions, rows=50) == 0
    assert _count(dialect, sql, executions, rows=1) == len(executions)


@pytest.mark.parametrize(("dialect", "sql", "executions"), ONE_BY_ONE_ALL_THE_SAME)
def test_pages_of_many_parents_are_counted(dialect: str, sql: str, executions: list[Any]) -> None:
    assert _count(dialect, sql, executions, rows=50) == len(executions)


class Hostile:
    def __hash__(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize("parameters", [(), (1,), ({"a": [1]}, Hostile()), {"x": 1}, {}])
@pytest.mark.parametrize(
    "sql", ["SELECT %s FROM t WHERE a IN (%s, ", "VALUES (", ")))((in (?,", "%(x)s $9 :1", ""]
)
@pytest.mark.parametrize("dialect", ["postgresql", "sqlite", "mysql"])
def test_any_text_with_any_parameters_is_read(dialect: str, sql: str, parameters: Any) -> None:
    ValueReader(sql, dialect).read(parameters)
