"""What reports decide from rows of the server: trees, replaceable indexes, expected sizes, merged statements."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_check.database_reports._bloat import expected_pages
from mks_check.database_reports._indexes import Index, redundant_to
from mks_check.database_reports._locks import Backend, blocking_tree
from mks_check.database_reports._plans import candidates_in, shape
from mks_check.database_reports._report import DatabaseReport, Section, in_short
from mks_check.database_reports._statements import merged
from mks_hardening.db import fingerprint
from mks_hardening.db.plan._explain_output import Plan, nodes_of, postgresql_plan


def _tree(waits: dict[int, list[int]]) -> list[str]:
    backends = {
        pid: Backend(pid=pid, blocked_by=blockers, row={"state": "active"}) for pid, blockers in waits.items()
    }
    return [str(row["pid"]) for row in blocking_tree(backends)]


@pytest.mark.parametrize(
    ("waits", "tree"),
    [
        ({1: [], 2: []}, []),
        ({1: [], 2: [1], 3: [1], 4: [3], 5: []}, ["1", "  2", "  3", "    4"]),
        ({1: [], 2: [1], 3: [], 4: [3, 1]}, ["1", "  2", "  4", "3"]),
        ({1: [2], 2: [1]}, ["1", "  2"]),  # a deadlock that is not resolved yet
        ({1: [0], 2: [1]}, ["prepared", "  1", "    2"]),
        ({1: [99]}, ["99", "  1"]),  # of another database
        ({1: [], 2: [1, 1, 1]}, ["1", "  2"]),
    ],
)
def test_sessions_stand_below_what_they_wait_for(waits: dict[int, list[int]], tree: list[str]) -> None:
    assert _tree(waits) == tree


@given(st.dictionaries(st.integers(1, 9), st.lists(st.integers(0, 12), max_size=4), max_size=9))
def test_every_session_that_waits_or_blocks_stands_in_the_tree_once(waits: dict[int, list[int]]) -> None:
    shown = [pid.strip() for pid in _tree(waits)]
    involved = {pid for pid, blockers in waits.items() if blockers} | {
        blocker for blockers in waits.values() for blocker in blockers
    }
    assert sorted(shown) == sorted(str(pid or "prepared") for pid in involved)


def _index(name: str, *columns: int, **parts: Any) -> Index:
    return Index(name=name, table="public.t", columns=columns, **parts)


@pytest.mark.parametrize(
    ("found", "pairs"),
    [
        ([_index("a", 1), _index("b", 2)], []),
        ([_index("a", 1, scans=1), _index("b", 1, scans=9)], [("a", "b")]),
        ([_index("a", 1), _index("pk", 1, is_constraint=True, is_unique=True)], [("a", "pk")]),
        ([_index("a", 1, scans=9), _index("u", 1, is_unique=True)], [("a", "u")]),
        ([_index("a", 1), _index("ab", 1, 2)], [("a", "ab")]),
        ([_index("b", 2), _index("ab", 1, 2)], []),
        ([_index("u", 1, is_unique=True), _index("ab", 1, 2)], []),
        ([_index("a", 1, condition="x"), _index("ab", 1, 2)], []),
        ([_index("a", 1, condition="x"), _index("b", 1, condition="x")], [("b", "a")]),
        ([_index("a", 1, options="3"), _index("ab", 1, 2, options="0 0")], []),
        ([_index("a", 1, classes="7 0"), _index("ab", 1, 2, classes="7 9 0 0")], [("a", "ab")]),
        ([_index("a", 1, classes="7 100"), _index("ab", 1, 2, classes="7 9 0 0")], []),
        ([_index("a", 1, method="gin"), _index("ab", 1, 2, method="gin")], []),
        (
            [_index("a", 1), _index("i", 1, 2, key_columns=1)],
            [],
        ),  # INCLUDE: larger, and sorted by the first only
        ([_index("a", 0, expressions="lower(x)"), _index("b", 0, expressions="upper(x)")], []),
        ([_index("a", 1, valid=False), _index("b", 1)], []),
        ([_index("a", 1, is_constraint=True), _index("b", 1, is_constraint=True)], []),
        ([_index("a", 1), Index(name="b", table="public.u", columns=(1,))], []),
    ],
)
def test_an_index_is_redundant_if_another_one_does_the_same(
    found: list[Index], pairs: list[tuple[str, str]]
) -> None:
    assert [(one.name, other.name) for one, other in redundant_to(found)] == pairs


def test_no_two_indexes_replace_each_other() -> None:
    found = [_index(name, 1) for name in "abc"] + [_index("ab", 1, 2)]
    pairs = redundant_to(found)
    assert len({one.name for one, _ in pairs}) == len(pairs) == 3
    assert "ab" not in {one.name for one, _ in pairs}


@pytest.mark.parametrize(
    ("rows", "width", "options", "pages"),
    [
        (0, 100, {}, 0),
        # 24 bytes of header, 16 of values and 4 of pointer: 185 rows in a page of 8,168 bytes.
        (1_850, 12, {}, 10),
        (1_850, 12, {"fill": 50}, 20),
        (1_850, 12, {"nullable": True, "columns": 20}, 12),
    ],
)
def test_expected_size_of_a_table(rows: float, width: float, options: dict[str, Any], pages: int) -> None:
    parts: dict[str, Any] = {"columns": 2, "nullable": False, "block": 8192, **options}
    assert expected_pages(rows, width, **parts) == pages


def test_statements_are_merged_by_fingerprint_and_hide_literals() -> None:
    def row(query: str, calls: int, total: float, maximum: float, rows: int) -> dict[str, object]:
        numbers = {"calls": calls, "total_ms": total, "max_ms": maximum, "rows": rows, "hit": 3, "read": 1}
        return {"query": query, **numbers}

    lists, update, secret = merged(
        [
            row("SELECT * FROM t WHERE a IN ($1)", 1, 1.0, 1.0, 1),
            row("ALTER ROLE x PASSWORD 'S3CRET'", 1, 0.5, 0.5, 0),
            row("SELECT * FROM t WHERE a IN ($1, $2)", 3, 9.0, 7.0, 7),
            row("UPDATE t SET a = $1", 2, 3.0, 2.0, 2),
        ]
    )
    assert lists["statement"] == "select * from t where a in (?)"
    assert lists["fingerprint"] == fingerprint("SELECT * FROM t WHERE a IN (1, 2, 3)")
    names = ("total ms", "calls", "mean ms", "max ms", "rows per call", "cache %")
    assert [lists[name] for name in names] == [10.0, 4, 2.5, 7.0, 2.0, 75.0]
    assert update["statement"] == "update t set a = ?"
    assert "S3CRET" not in str(secret)


def test_a_report_counts_findings_and_shows_no_control_characters() -> None:
    report = DatabaseReport(
        sections=[
            Section(title="bad", rows=[{"name": "a\x1b[31m\nb", "MB": 7}], advice="drop"),
            Section(title="facts", rows=[{"name": "x" * 500, "MB": 123}]),
            Section(title="none", rows=[], advice="drop"),
        ],
        notes=["half of it"],
    )
    text = report.text()
    assert "a?[31m?b" in text
    assert "\x1b" not in text
    assert "…" in text
    assert "none" not in text
    assert text.endswith("note: half of it")
    assert report.findings == 1
    content = json.loads(report.json())
    assert content["findings"] == 1
    assert content["sections"][1]["rows"][0]["name"] == "x" * 500
    assert DatabaseReport(sections=[]).text() == "nothing found"
    assert (in_short(12.345), in_short(123.45)) == (12.3, 123)


@pytest.mark.parametrize(
    ("condition", "columns"),
    [
        ("(t.id = $1)", ("id",)),
        ("((t.kind)::text = $1)", ("kind",)),
        ('((t.a > $1) AND (t."B b" = $2) AND (t.c < $3))', ('"B b"', "a")),
        ("((t.n >= $1) AND (t.n <= $2))", ("n",)),
        ("(t.id = ANY ($1))", ("id",)),
        ("((t.a = $1) OR (t.b = $2))", None),
        ("(t.a <> $1)", None),
        ("(lower(t.a) = $1)", None),
        ("(t.a = t.b)", None),
        ("((t.name)::text ~~ $1)", None),
        ("t.flag", None),
    ],
)
def test_only_columns_that_an_index_finds_are_candidates(condition: str, columns: Any) -> None:
    node = {"Node Type": "Seq Scan", "Relation Name": "t", "Schema": "s", "Filter": condition}
    plan = postgresql_plan([{"Plan": {**node, "Plan Rows": 1, "Total Cost": 1.0}}])
    assert [one.columns for one in candidates_in(plan)] == ([] if columns is None else [columns])


def test_a_long_plan_keeps_what_distinguishes_it() -> None:
    def plan(last: str) -> Plan:
        node: dict[str, object] = {"Node Type": last}
        for _ in range(30):
            node = {"Node Type": "Nested Loop", "Plans": [node]}
        for each in (one for one, _ in nodes_of(node, 0)):
            cast("dict[str, object]", each).update({"Plan Rows": 1, "Total Cost": 1.0})
        return postgresql_plan([{"Plan": node}])

    one, other = shape(plan("Result")), shape(plan("Function Scan"))
    assert one != other
    assert len(one) <= 200
