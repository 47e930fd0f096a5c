from __future__ import annotations

from mks_hardening.wsgi import MemorySessionStore
from tables import faulty_rows
from wsgi_session_corpus import faults_of, load_cases

WSGI_ONLY = {"test_the_corpus_is_as_broad_as_promised"}
IN_THREAD = True  # views of the corpus call the plain methods of their session
CASES = load_cases()


def test_the_corpus_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_every_case() -> None:
    wrong = faulty_rows(
        CASES, lambda case: faults_of(case, MemorySessionStore()), name=lambda case: case["name"]
    )
    assert wrong == {}
