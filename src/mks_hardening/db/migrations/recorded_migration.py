"""Steps of a migration, recorded while it ran without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mks_hardening.db.migrations._judge import RuleViolation
from mks_hardening.db.migrations._waivers import MigrationWaiver

__all__ = ["MigrationStep", "RecordedMigration"]


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """Something that a migration does: SQL, or something that the linter cannot judge.

    Attributes:
        sql: one or more statements; empty if there is a ``violation``.
        line: line in the file of the migration; 0 if the lines of ``sql`` are those of the file.
        violation: why it cannot be judged.
    """

    sql: str = ""
    line: int = 0
    violation: RuleViolation | None = None


@dataclass(frozen=True, slots=True)
class RecordedMigration:
    """The steps of one migration.

    Attributes:
        name: revision, app and name, or file.
        path: file; empty if there is none.
        steps: what it does, in order.
        waivers: what its comments accept.
        in_transaction: whether it runs in a transaction.
    """

    name: str
    path: str
    steps: Sequence[MigrationStep]
    waivers: Sequence[MigrationWaiver] = ()
    in_transaction: bool = True
