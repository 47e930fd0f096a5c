"""Findings of the migration linter, and their reports: text, JSON, SARIF."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from mks_check.migrations.migration_rules import MIGRATION_RULES, MigrationRule
from mks_hardening._core.checks import choice
from mks_hardening._core.sarif import SarifLevel, SarifResult, SarifRule, sarif_log

__all__ = ["MigrationFinding", "MigrationReport"]

_LEVELS: Final[tuple[SarifLevel, ...]] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class MigrationFinding:
    """A rule that a migration violates.

    Attributes:
        rule_id: identifier of the rule.
        level: ``error``, ``warning`` or ``note``.
        migration: name of the migration: revision, app and name, or file.
        path: file; empty if unknown.
        line: line in the file; 0 if unknown.
        subject: table, ``table.column`` or another object; empty if unknown.
        detail: what exactly; empty if the rule says it all.
        waiver: reason for which the migration accepts it; empty if it does not.
    """

    rule_id: str
    level: SarifLevel
    migration: str
    path: str
    line: int
    subject: str
    detail: str
    waiver: str = ""

    @property
    def rule(self) -> MigrationRule:
        """The rule, with its reason and the safe steps."""
        return MIGRATION_RULES[self.rule_id]

    @property
    def message(self) -> str:
        """One or two sentences."""
        subject = f"{self.subject}: " if self.subject else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{subject}{self.rule.reason}{detail}"


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """Result of a run of the linter.

    Attributes:
        migrations: names of the migrations that were judged, in order.
        findings: all findings, accepted ones too, in order.
    """

    migrations: tuple[str, ...]
    findings: tuple[MigrationFinding, ...]

    def failures(self, level: SarifLevel = "error") -> tuple[MigrationFinding, ...]:
        """Return the findings that no waiver accepts.

        Args:
            level: least severe level to return.

        Raises:
            ConfigurationError: ``level`` is none of the levels.
        """
        choice(level, _LEVELS, parameter="level")
        levels = _LEVELS[: _LEVELS.index(level) + 1]
        return tuple(found for found in self.findings if found.level in levels and not found.waiver)

    def text(self) -> str:
        """Return a report for people, with the safe steps of each rule once."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        explained: set[str] = set()
        for found in self.findings:
            if found.waiver:
                continue
            place = f"{found.path or found.migration}{f':{found.line}' * bool(found.line)}"
            yield f"{place}: {found.level} {found.rule_id} {found.rule.name}: {found.message}"
            if found.rule_id not in explained:
                explained.add(found.rule_id)
                yield from (f"    {number}. {step}" for number, step in enumerate(found.rule.steps, 1))
        counts = Counter(found.level for found in self.findings if not found.waiver)
        accepted = sum(bool(found.waiver) for found in self.findings)
        shown = ", ".join(f"{counts[level]} {level}s" for level in _LEVELS)
        yield f"{len(self.migrations)} migrations: {shown}, {accepted} accepted with a reason"

    def json(self) -> str:
        """Return a JSON document with ``migrations`` and ``findings``."""
        findings = [
            {**asdict(found), "message": found.message, "steps": found.rule.steps, "link": found.rule.link}
            for found in self.findings
        ]
        return json.dumps({"migrations": self.migrations, "findings": findings}, indent=2, ensure_ascii=False)

    def sarif(self) -> str:
        """Return a SARIF 2.1.0 log, for code scanning services."""
        from mks_hardening import __version__

        rules = [
            SarifRule(rule.id, rule.name, rule.reason, "\n".join(rule.steps), rule.link, rule.level)
            for rule in MIGRATION_RULES.values()
        ]
        results = (
            SarifResult(
                found.rule_id,
                found.level,
                found.message,
                uri=found.path.replace("\\", "/"),
                line=found.line,
                suppression=found.waiver,
            )
            for found in self.findings
        )
        log = sarif_log(tool="mks-hardening", version=__version__, rules=rules, results=results)
        return json.dumps(log, indent=2, ensure_ascii=False)
