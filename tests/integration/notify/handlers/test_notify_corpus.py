from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notify_corpus import faults_of, load_cases

CASES = load_cases()


def test_the_corpus_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert {case["channel"] for case in CASES} == {"email", "slack", "webhook"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_scenario(case: dict[str, Any], tmp_path: Path) -> None:
    assert faults_of(case, tmp_path) == []
