"""Linter of schema changes that block or break a running application."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mks_check.migrations._judge import MigrationJudge, RuleViolation
from mks_check.migrations._known_schema import KnownSchema
from mks_check.migrations._sql_script import SqlComment, read_script
from mks_check.migrations._waivers import read_contracts, read_waivers, release_of
from mks_check.migrations.migration_report import MigrationFinding, MigrationReport
from mks_check.migrations.migration_rules import MIGRATION_RULES
from mks_check.migrations.recorded_migration import MigrationStep, RecordedMigration
from mks_hardening._core.checks import boolean, instances, path_text, text_of, whole_number
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["MigrationLinter"]

_OLDEST_VERSION = 9
_NEWEST_VERSION = 99
# What a migration takes away from releases that still use it.
_CONTRACTED = frozenset({"MG210", "MG212", "MG213", "MG216", "MG602"})


class MigrationLinter:
    """Finds operations that lock or rewrite tables in use, or that running code does not survive.

    The linter reads the SQL of migrations; it never connects to a database. Migrations that it has already seen
    tell it which columns and constraints exist, so pass them in order. Tables created by the same migration are
    not in use; with ``IF NOT EXISTS`` they may be, and errors about them become warnings. A statement that it
    cannot read is a finding (``MG801``).

    Args:
        server_version: major version of PostgreSQL in production, for example ``16``: a constant default rewrites
            the table before version 11.
        has_lock_timeout: whether the program that runs migrations, or the role that it uses, sets ``lock_timeout``.
        oldest_release: oldest release of the application that is running while migrations run, for example
            ``3.1``. A mark ``mks: contract 3.2 REASON`` accepts what a migration drops or renames from then on, and
            is an error (``MG211``) before.

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    def __init__(
        self, *, server_version: int, has_lock_timeout: bool = False, oldest_release: str | None = None
    ) -> None:
        self._version = whole_number(
            server_version, parameter="server_version", minimum=_OLDEST_VERSION, maximum=_NEWEST_VERSION
        )
        self._has_lock_timeout = boolean(has_lock_timeout, parameter="has_lock_timeout")
        self._oldest = None
        if oldest_release is not None:
            self._oldest = release_of(text_of(oldest_release, parameter="oldest_release"))
            if self._oldest is None:
                raise ConfigurationError(
                    "oldest_release must be numbers and dots, for example 3.1", parameter="oldest_release"
                )
        self._schema = KnownSchema()

    @property
    def server_version(self) -> int:
        """Major version of PostgreSQL that migrations are judged for."""
        return self._version

    def lint_sql(self, sql: str, *, name: str = "migration", in_transaction: bool = True) -> MigrationReport:
        """Judge one SQL script.

        Args:
            sql: statements separated by semicolons.
            name: name of the migration in findings.
            in_transaction: whether whoever runs it opens a transaction; ``BEGIN`` and ``COMMIT`` are obeyed.

        Raises:
            ConfigurationError: a parameter is invalid.
        """
        text_of(sql, parameter="sql")
        text_of(name, parameter="name", empty=False)
        boolean(in_transaction, parameter="in_transaction")
        return self.lint([RecordedMigration(name, [MigrationStep(sql)], in_transaction=in_transaction)])

    def lint_sql_files(
        self, paths: Iterable[str | PathLike[str]], *, in_transaction: bool = True
    ) -> MigrationReport:
        """Judge SQL files, in the order in which they are given.

        Args:
            paths: files in UTF-8.
            in_transaction: whether whoever runs them opens a transaction for each.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        boolean(in_transaction, parameter="in_transaction")
        if isinstance(paths, (str, bytes, Mapping)) or not isinstance(paths, Iterable):
            raise ConfigurationError("paths must be several paths", parameter="paths")
        migrations: list[RecordedMigration] = []
        for path in paths:
            name = path_text(path, parameter="paths")
            try:
                sql = Path(name).read_text(encoding="utf-8-sig")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
                raise ConfigurationError(f"{name} cannot be read ({reason})", parameter="paths") from None
            steps = [MigrationStep(sql)]
            migrations.append(RecordedMigration(Path(name).stem, steps, name, in_transaction=in_transaction))
        return self.lint(migrations)

    def lint_alembic(self, location: str | PathLike[str], *, since: str | None = None) -> MigrationReport:
        """Judge the upgrades of all revisions of Alembic.

        Each revision runs without a database, as with ``alembic upgrade --sql``, and its SQL is judged. A revision
        that asks a database for rows gets none, and that is a finding (``MG802``). Downgrades are not judged. The
        ``existing_type`` of ``alter_column`` counts where no earlier revision tells the type.

        Args:
            location: ``alembic.ini``, or the folder that contains ``versions``.
            since: revision that is in production; it and all older ones are read, but not reported.

        Raises:
            ConfigurationError: there are no revisions, or one cannot be imported.
            MissingDependencyError: Alembic is not installed.
        """
        from mks_check.migrations._alembic_revisions import alembic_revisions

        revisions = alembic_revisions(path_text(location, parameter="location"))
        return self.lint(revisions, since=since)

    def lint(self, migrations: Iterable[RecordedMigration], *, since: str | None = None) -> MigrationReport:
        """Judge migrations of any tool that can list its SQL.

        Args:
            migrations: migrations in the order in which they are applied.
            since: name of a migration; it and all older ones are read, but not reported.

        Raises:
            ConfigurationError: a parameter is invalid, or there is no migration ``since``.
        """
        recorded = instances(migrations, RecordedMigration, parameter="migrations")
        names: list[str] = []
        findings: list[MigrationFinding] = []
        if since is not None and text_of(since, parameter="since") not in {one.name for one in recorded}:
            raise ConfigurationError("since must be the name of a migration", parameter="since")
        is_reported = since is None
        for migration in recorded:
            found = list(dict.fromkeys(self._judge(migration)))
            comments = list(_comments_of(migration))
            found = _with_waivers(migration, self._with_contracts(migration, found, comments), comments)
            if is_reported:
                names.append(migration.name)
                findings += found
            is_reported |= migration.name == since
        return MigrationReport(tuple(names), tuple(findings))

    def _judge(self, migration: RecordedMigration) -> Iterator[MigrationFinding]:
        judge = MigrationJudge(
            self._schema,
            version=self._version,
            in_transaction=migration.in_transaction,
            has_lock_timeout=self._has_lock_timeout,
        )
        found: list[tuple[RuleViolation, int]] = []
        for step in migration.steps:
            for table, column, kind in step.stated_types:
                self._schema.state_type(table, column, kind)
            if step.not_judged:
                found.append((RuleViolation("MG802", "", step.not_judged), step.line))
            for statement in read_script(step.sql).statements:
                found += [(violation, step.line or statement.line) for violation in judge.judge(statement)]
        for violation, line in found:
            if violation not in judge.remedied:
                yield _finding(migration, violation, line)

    def _with_contracts(
        self, migration: RecordedMigration, findings: list[MigrationFinding], comments: list[SqlComment]
    ) -> list[MigrationFinding]:
        """Accept what no running release uses any more, and report marks that come too early."""
        for mark in read_contracts(comments):
            named = ".".join(map(str, mark.release))
            affected = [index for index, found in enumerate(findings) if found.rule_id in _CONTRACTED]
            if not mark.release:
                findings.append(_finding(migration, RuleViolation("MG901", ""), mark.line))
            elif not affected:
                unused = RuleViolation("MG902", "", f"it is a contract mark of {named}")
                findings.append(_finding(migration, unused, mark.line))
            elif self._oldest is not None and self._oldest < mark.release:
                oldest = ".".join(map(str, self._oldest))
                early = RuleViolation("MG211", "", f"{oldest} is running, the mark says {named}")
                findings.append(_finding(migration, early, mark.line))
            else:
                if self._oldest is None:
                    unknown = RuleViolation("MG211", "", "the oldest running release is not given", "warning")
                    findings.append(_finding(migration, unknown, mark.line))
                for index in affected:
                    findings[index] = replace(findings[index], waiver=f"since {named}: {mark.reason}")
        return findings


def _comments_of(migration: RecordedMigration) -> Iterator[SqlComment]:
    for line, text in migration.comments:
        yield SqlComment(text, line)
    for step in migration.steps:
        for comment in read_script(step.sql).comments:
            yield SqlComment(comment.text, step.line or comment.line)


def _finding(migration: RecordedMigration, violation: RuleViolation, line: int) -> MigrationFinding:
    rule = MIGRATION_RULES[violation.rule_id]
    return MigrationFinding(
        rule.id,
        violation.level or rule.level,
        migration.name,
        migration.path,
        line,
        violation.subject,
        violation.detail,
    )


def _with_waivers(
    migration: RecordedMigration, findings: list[MigrationFinding], comments: list[SqlComment]
) -> list[MigrationFinding]:
    """Mark what the migration accepts, and report waivers that are invalid or match nothing."""
    for waiver in read_waivers(comments):
        if waiver.rule_id not in MIGRATION_RULES or not waiver.reason:
            detail = (
                "" if waiver.rule_id in MIGRATION_RULES else f"there is no rule {waiver.rule_id or 'in it'}"
            )
            findings.append(_finding(migration, RuleViolation("MG901", "", detail), waiver.line))
            continue
        matching = [
            index
            for index, found in enumerate(findings)
            if found.rule_id == waiver.rule_id and _covers(waiver.subject, found.subject)
        ]
        for index in matching:
            findings[index] = replace(findings[index], waiver=waiver.reason)
        if not matching:
            findings.append(
                _finding(migration, RuleViolation("MG902", "", f"it accepts {waiver.rule_id}"), waiver.line)
            )
    return findings


def _covers(limit: str, subject: str) -> bool:
    return not limit or subject == limit or subject.startswith(f"{limit}.")
