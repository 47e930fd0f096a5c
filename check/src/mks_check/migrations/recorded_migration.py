"""Steps of a migration, recorded while it ran without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MigrationStep", "RecordedMigration"]


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """Something that a migration does: SQL, or something that the linter cannot judge.

    Attributes:
        sql: one or more statements; empty if the step is no SQL.
        line: line in the file of the migration; 0 if the lines of ``sql`` are those of the file.
        not_judged: why the step cannot be judged; it becomes a finding (``MG802``).
        stated_types: table, column and present type of columns, as the migration states them; the types that
            earlier migrations have given take precedence.
    """

    sql: str = ""
    line: int = 0
    not_judged: str = ""
    stated_types: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True)
class RecordedMigration:
    """The steps of one migration, for ``MigrationLinter.lint``.

    Attributes:
        name: revision, app and name, or file.
        steps: what it does, in order.
        path: file; empty if there is none.
        comments: line and text of each comment in its source that is not in its SQL; it may accept findings.
        in_transaction: whether it runs in a transaction.
    """

    name: str
    steps: Sequence[MigrationStep]
    path: str = ""
    comments: Sequence[tuple[int, str]] = ()
    in_transaction: bool = True
