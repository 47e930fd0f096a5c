"""The page about ASVS names tests that exist, and rows that they read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "asvs.toml"

pytestmark = pytest.mark.skipif(not TABLE.exists(), reason="the documentation is not part of the wheel")

CHAPTERS = 17  # of ASVS 5.0


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text("utf-8"))


def test_each_test_that_is_named_exists(table: dict[str, Any]) -> None:
    files = {
        path.name: path
        for folder in ("tests", "deploy/tests")
        for path in sorted((ROOT / folder).rglob("test_*.py"))
    }
    cases = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "corpus").rglob("*.jsonl"))
    named = [(key, test) for key, entry in table.items() if key != "chapters" for test in entry["tests"]]
    missing = []
    for requirement, test in named:
        file, name, case = re.fullmatch(r"(test_\w+\.py)::(test_\w+)(?:\[(.+)\])?", test).groups()  # type: ignore[union-attr]  # a name of another form is an error here
        text = files[file].read_text("utf-8") if file in files else ""
        if not re.search(rf"^ *(?:async )?def {name}\(", text, re.MULTILINE) or (
            case and f'"{case}"' not in cases
        ):
            missing.append((requirement, test))
    assert missing == []
    assert len(named) > 150


def test_each_requirement_is_named_once_in_order_with_its_proof(table: dict[str, Any]) -> None:
    numbers = [tuple(map(int, key.split("."))) for key in table if key != "chapters"]
    assert numbers == sorted(numbers)
    assert [int(chapter) for chapter in table["chapters"]] == [*range(1, CHAPTERS + 1)]
    for key, entry in table.items():
        if key != "chapters":
            assert re.fullmatch(r"[1-9]\d?\.\d\d?\.\d\d?", key)
            assert entry["level"] in {1, 2, 3}
            assert entry["tests"], key
            assert entry["text"].endswith(".")
            assert {*entry} <= {"level", "text", "tests", "application"}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_has_each_requirement(table: dict[str, Any], language: str) -> None:
    page = (ROOT / "docs" / language / "reference" / "asvs.md").read_text("utf-8")
    for key, entry in table.items():
        if key != "chapters":
            assert f"(asvs-{key.replace('.', '-')})=\n**{key}** (L{entry['level']}) {entry['text']}" in page
