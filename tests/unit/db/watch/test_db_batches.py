"""Which executions of one statement are batches, and which ask one by one for what a list could have asked."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.db.watch._batches import values_of
from mks_hardening.db.watch.n_plus_one import StatementGroup

S = "postgresql"
L = "sqlite"
ONE_BY_ONE: list[tuple[str, str, list[Any]]] = [
    (S, "SELECT * FROM t WHERE a = %s AND s IN ('x', 'y')", [(1,), (2,), (3,)]),
    (S, "SELECT * FROM t WHERE a = %s AND s IN (%s, %s)", [(1, "x", "y"), (2, "x", "y"), (3, "x", "y")]),
    (S, "SELECT * FROM t WHERE s IN (%s, %s) AND a = %s", [("x", "y", 1), ("x", "y", 2), ("x", "z", 3)]),
    (S, "SELECT * FROM t WHERE a IN (%s) AND b = %s", [(1, 7), (2, 7), (3, 7)]),
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


def _count(dialect: str, sql: str, executions: list[Any]) -> int:
    group = StatementGroup(statement=None, hint="")  # type: ignore[arg-type] # only counts here
    for parameters in executions:
        group.add(values_of(sql, parameters, dialect))
    return group.count


@pytest.mark.parametrize(("dialect", "sql", "executions"), ONE_BY_ONE)
def test_one_by_one_is_counted(dialect: str, sql: str, executions: list[Any]) -> None:
    assert _count(dialect, sql, executions) == len(executions)


@pytest.mark.parametrize(("dialect", "sql", "executions"), BATCHES)
def test_batches_are_not(dialect: str, sql: str, executions: list[Any]) -> None:
    assert _count(dialect, sql, executions) == 0


class Hostile:
    def __hash__(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize("parameters", [(), (1,), ({"a": [1]}, Hostile()), {"x": 1}, {}])
@pytest.mark.parametrize(
    "sql", ["SELECT %s FROM t WHERE a IN (%s, ", "VALUES (", ")))((in (?,", "%(x)s $9 :1", ""]
)
@pytest.mark.parametrize("dialect", ["postgresql", "sqlite", "mysql"])
def test_any_text_with_any_parameters_is_read(dialect: str, sql: str, parameters: Any) -> None:
    values_of(sql, parameters, dialect)
