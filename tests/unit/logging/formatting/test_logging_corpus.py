"""Every nasty record of the corpus comes out as one safe line, with each encoder and in each schema."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import logging_corpus
from mks_hardening.logging import JsonFormatter
from tables import faulty_rows

CASES = logging_corpus.load()


class Hooked(JsonFormatter):
    """Overrides a hook, so that every record takes the general path."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return log_data


FORMATTERS: dict[str, logging.Formatter] = {
    "orjson": JsonFormatter(),
    "json": JsonFormatter(encoder="json"),
    "general path": Hooked(),
}


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_nasty_records(formatter: str) -> None:
    tried = FORMATTERS[formatter]
    wrong = faulty_rows(CASES, lambda case: logging_corpus.faults(case, tried), name=lambda case: case["id"])
    assert wrong == {}


@pytest.mark.parametrize("schema", ["ecs", "gcp"])
def test_nasty_records_in_other_schemas(schema: str) -> None:
    formatter = JsonFormatter(schema=schema)
    wrong = {case["id"]: logging_corpus.faults({**case, "fields": {}}, formatter) for case in CASES}
    assert {identity: found for identity, found in wrong.items() if found} == {}


def test_nasty_records_in_the_shape_of_python_json_logger() -> None:
    # Its lines have bytes as Base64 and no structure of an exception: what is present differs, what is absent not.
    formatter = JsonFormatter(schema="python-json-logger")
    wrong = {
        case["id"]: logging_corpus.faults({**case, "fields": {}, "present": ()}, formatter) for case in CASES
    }
    assert {identity: found for identity, found in wrong.items() if found} == {}


def test_the_corpus_is_large_and_its_runner_sees_faults() -> None:
    assert len(CASES) >= 200
    plain = logging.Formatter()
    assert sum(bool(logging_corpus.faults(case, plain)) for case in CASES) == len(CASES)
