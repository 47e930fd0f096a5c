"""SARIF: what code scanning services read."""

from __future__ import annotations

import json
from typing import Any

from mks_hardening._core.sarif import SarifResult, SarifRule, sarif_log

RULE = SarifRule(
    "MG301", "index-not-concurrent", "An index blocks writes.", "Build it concurrently.", "", "error"
)


def test_a_finding_has_rule_level_and_place() -> None:
    result = SarifResult("MG301", "error", "the index blocks writes", "migrations/0002.sql", 7)
    log = json.loads(json.dumps(sarif_log(tool="t", version="1", rules=[RULE], results=[result])))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["MG301"]
    (found,) = run["results"]
    assert (found["ruleId"], found["ruleIndex"], found["level"]) == ("MG301", 0, "error")
    place = found["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "migrations/0002.sql"}, "region": {"startLine": 7}}
    assert "suppressions" not in found


def test_an_accepted_finding_is_suppressed_with_its_reason() -> None:
    result = SarifResult("MG301", "error", "m", "a.sql", 0, suppression="the table has 20 rows")
    found = _found(result)
    assert found["suppressions"] == [{"kind": "inSource", "justification": "the table has 20 rows"}]
    assert "region" not in found["locations"][0]["physicalLocation"]


def test_an_unknown_place_is_left_out() -> None:
    found = _found(SarifResult("X1", "note", "m"))
    assert found == {"ruleId": "X1", "level": "note", "message": {"text": "m"}}


def _found(result: SarifResult) -> dict[str, Any]:
    log: Any = sarif_log(tool="t", version="1", rules=[RULE], results=[result])
    (found,) = log["runs"][0]["results"]
    return dict(found)
