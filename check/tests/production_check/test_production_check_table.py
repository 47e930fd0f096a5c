"""Every check: a failing and a passing input, texts in two languages, ids that stay."""

from __future__ import annotations

import re
from collections import Counter

from mks_check import CheckDefinition, definitions
from mks_check.production_check.runner import judge
from production_check_cases import CASES, NOT_FROM_FACTS
from tables import faulty_rows

DEFINITIONS = {definition.id: definition for definition in definitions()}


def found(case: int, identifier: str) -> list[str]:
    report = judge(CASES[identifier][case])
    assert identifier in report.checked
    return [finding.id for finding in report.findings]


def test_the_table_is_complete() -> None:
    assert DEFINITIONS.keys() - NOT_FROM_FACTS == CASES.keys()


def test_there_are_at_least_sixty_checks() -> None:
    assert len(CASES) >= 60


def test_ids_are_unique_and_of_one_form() -> None:
    assert [name for name, count in Counter(each.id for each in definitions()).items() if count > 1] == []
    assert all(
        re.fullmatch(r"MKS-(?:RUN|SET|APP|FLASK|DJANGO|DEP|WEB|HOST)-\d{3}", name) for name in DEFINITIONS
    )


def test_failing_inputs_are_found_and_passing_ones_are_not() -> None:
    def wrong(identifier: str) -> str:
        if identifier not in found(0, identifier):
            return "not found in the failing input"
        return "found in the passing input" if identifier in found(1, identifier) else ""

    assert faulty_rows(CASES, wrong) == {}


def test_no_check_breaks_on_an_input() -> None:
    def broken(identifier: str) -> bool:
        return any("MKS-RUN-001" in found(case, identifier) for case in (0, 1))

    assert faulty_rows([name for name in CASES if name != "MKS-RUN-001"], broken) == {}


def test_texts_are_whole_in_both_languages() -> None:
    def wrong(definition: CheckDefinition) -> bool:
        sentences = definition.title["en"].endswith(".") and definition.title["ja"].endswith("。")
        japanese = re.search(r"[ぁ-んァ-ヶ]", definition.fix["ja"])
        return not (
            sentences and japanese and definition.fix["en"].strip() and definition.link.startswith("https://")
        )

    assert faulty_rows(definitions(), wrong, name=lambda each: each.id) == {}


def test_the_evidence_has_a_key_so_that_fingerprints_stay() -> None:
    keyless = {
        finding.id for failing, _ in CASES.values() for finding in judge(failing).findings if not finding.key
    }
    assert keyless == set()
