"""Which cases a suite that runs again leaves out: combinations of tables whose rows all remain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def without_most_combinations(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Return every n-th case of each test with several tables, the shortest of which has n rows, and all others.

    Every row of every table remains. Among three tables and more, every two rows of different tables meet.
    """
    tests: dict[str, list[tuple[pytest.Item, dict[str, int]]]] = {}
    tables: dict[str, dict[tuple[int, ...], int]] = {}
    for item in sorted(items, key=lambda item: item.nodeid):  # any order gives the same cases
        test = item.nodeid.partition("[")[0]
        places = {}
        for names in _tables(item):
            rows = tables.setdefault(f"{test} {names}", {})
            row = tuple(id(item.callspec.params[name]) for name in names)  # type: ignore[attr-defined]
            places[f"{test} {names}"] = rows.setdefault(row, len(rows))
        tests.setdefault(test, []).append((item, places))
    kept = set()
    for cases in tests.values():
        for item, places in cases:
            lengths = [length for table in places if (length := len(tables[table])) > 1]
            if len(lengths) < 2 or sum(places.values()) % min(lengths) == 0:
                kept.add(item)
    return kept


def _tables(item: pytest.Item) -> list[tuple[str, ...]]:
    """Return the columns of each table of a case: those of a mark together, those of a fixture alone."""
    if not hasattr(item, "callspec"):
        return []
    columns = [mark.args[0] for mark in item.iter_markers("parametrize")]
    of_marks = [tuple(each.replace(",", " ").split() if isinstance(each, str) else each) for each in columns]
    named = {name for names in of_marks for name in names}
    return [*of_marks, *((name,) for name in item.callspec.params if name not in named)]
