"""Which cases a suite that runs again leaves out, as pytest itself makes them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from testbed import combinations

CONFTEST = """
import pytest
from testbed.combinations import without_most_combinations

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    kept = without_most_combinations(items)
    items[:] = [item for item in items if item in kept]
"""
PROJECT = """
import pytest

ROWS = [("a", 0), ("b", 0), ("c", 1), ("d", 1)]

def test_alone(): pass

@pytest.mark.parametrize(("letter", "number"), ROWS)
def test_one(letter, number): pass

@pytest.mark.parametrize("letter,number", ROWS)
@pytest.mark.parametrize("only", ["once"])
def test_one_with_a_choice(letter, number, only): pass

@pytest.fixture(params=["x", "y"])
def server(request): pass

@pytest.mark.parametrize(("letter", "number"), ROWS)
def test_two(letter, number, server): pass

@pytest.mark.parametrize("letter, number", ROWS)
@pytest.mark.parametrize("kind", ["k", "l", "m"])
class TestThree:
    def test_method(self, letter, number, kind, server): pass

@pytest.mark.parametrize("kind", ["k", "l", pytest.param("m", marks=pytest.mark.skip)])
@pytest.mark.parametrize("size", [10, 20, 30])
def test_square(kind, size): pass
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, ...]]]:
    """The cases that remain, by test; in two random orders they are the same."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {Path(combinations.__file__).parents[1]}\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_project.py").write_text(PROJECT)
    runs = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--randomly-seed={seed}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        runs.append({line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line})
    assert runs[0] == runs[1]
    found: dict[str, list[tuple[str, ...]]] = {}
    for name in runs[0]:
        test, _, case = name.removesuffix("]").partition("[")
        found.setdefault(test, []).append(tuple(case.split("-")))
    return found


def test_a_test_of_one_table_or_none_is_complete(kept: dict[str, list[tuple[str, ...]]]) -> None:
    assert len(kept["test_alone"]) == 1
    assert len(kept["test_one"]) == 4
    assert len(kept["test_one_with_a_choice"]) == 4


@pytest.mark.parametrize(
    ("test", "number"), [("test_two", 4), ("TestThree::test_method", 12), ("test_square", 3)]
)
def test_every_row_of_every_table_remains(
    test: str, number: int, kept: dict[str, list[tuple[str, ...]]]
) -> None:
    rows = ({"a", "b", "c", "d"}, {"x", "y"}, {"k", "l", "m"}, {"10", "20", "30"})
    words = Counter(word for case in kept[test] for word in case)
    assert len(kept[test]) == number
    assert all(of_table <= words.keys() or not of_table & words.keys() for of_table in rows)


def test_among_three_tables_every_two_rows_meet(kept: dict[str, list[tuple[str, ...]]]) -> None:
    cases = [set(case) for case in kept["TestThree::test_method"]]
    for one, other in itertools.combinations(("abcd", "klm", "xy"), 2):
        for pair in itertools.product(one, other):
            assert any(set(pair) <= case for case in cases), pair
