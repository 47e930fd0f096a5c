"""SARIF 2.1.0 log of the findings of one check (OASIS standard, sections 3.13 to 3.27)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["SarifLevel", "SarifResult", "SarifRule", "sarif_log"]

SarifLevel = Literal["error", "warning", "note"]

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


@dataclass(frozen=True, slots=True)
class SarifRule:
    """A rule of the check.

    Attributes:
        id: stable identifier, for example ``MG301``.
        name: readable name in PascalCase or with dashes.
        summary: one sentence.
        help: what to do, as plain text.
        help_uri: address of a page about the rule; empty if there is none.
        level: default level.
    """

    id: str
    name: str
    summary: str
    help: str
    help_uri: str
    level: SarifLevel


@dataclass(frozen=True, slots=True)
class SarifResult:
    """One finding.

    Attributes:
        rule_id: identifier of its rule.
        level: level of this finding.
        message: text for people.
        uri: file, relative to the working directory, with ``/``; empty if the finding concerns no file.
        line: line in the file, from 1; 0 if unknown.
        suppression: reason for which the finding is accepted in the source; empty if it is not.
    """

    rule_id: str
    level: SarifLevel
    message: str
    uri: str = ""
    line: int = 0
    suppression: str = ""


def sarif_log(
    *, tool: str, version: str, rules: Sequence[SarifRule], results: Iterable[SarifResult]
) -> dict[str, object]:
    """Return a log with one run, ready for ``json.dumps``."""
    position = {rule.id: index for index, rule in enumerate(rules)}
    driver = {"name": tool, "version": version, "rules": [_rule(rule) for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(result, position) for result in results],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: SarifRule) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": rule.level},
    }
    return {**shown, "helpUri": rule.help_uri} if rule.help_uri else shown


def _result(result: SarifResult, position: Mapping[str, int]) -> dict[str, object]:
    shown: dict[str, object] = {
        "ruleId": result.rule_id,
        "level": result.level,
        "message": {"text": result.message},
    }
    if result.rule_id in position:
        shown["ruleIndex"] = position[result.rule_id]
    if result.uri:
        place: dict[str, object] = {"artifactLocation": {"uri": result.uri}}
        if result.line:
            place["region"] = {"startLine": result.line}
        shown["locations"] = [{"physicalLocation": place}]
    if result.suppression:
        shown["suppressions"] = [{"kind": "inSource", "justification": result.suppression}]
    return shown
