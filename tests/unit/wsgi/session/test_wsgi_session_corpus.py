from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.wsgi import MemorySessionStore
from wsgi_session_corpus import faults_of, load_cases

WSGI_ONLY = {"test_the_corpus_is_as_broad_as_promised"}
IN_THREAD = True  # views of the corpus call the plain methods of their session
CASES = load_cases()


def test_the_corpus_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    assert faults_of(case, MemorySessionStore()) == []
