"""The migrations of a Django project, judged by their SQL, which is collected without a database."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from mks_check.migrations._waivers import comments_of_python
from mks_check.migrations.migration_linter import MigrationLinter
from mks_check.migrations.migration_report import MigrationReport
from mks_check.migrations.recorded_migration import MigrationStep, RecordedMigration
from mks_hardening.contrib.django_app._django import FromDjango
from mks_hardening.exceptions import ConfigurationError

__all__ = ["lint"]


def lint(
    apps: Sequence[str] = (),
    *,
    server_version: int,
    has_lock_timeout: bool = False,
    oldest_release: str | None = None,
) -> MigrationReport:
    """Judge all migrations of the project, and report those of some apps, or all.

    Raises:
        ConfigurationError: an option is invalid, an app has no migrations, or psycopg is not installed.
    """
    linter = MigrationLinter(
        server_version=server_version, has_lock_timeout=has_lock_timeout, oldest_release=oldest_release
    )
    report = linter.lint(_recorded_migrations(server_version=linter.server_version))
    unknown = set(apps) - {name.partition(".")[0] for name in report.migrations}
    if unknown:
        raise ConfigurationError(f"no migrations of {', '.join(sorted(unknown))}", parameter="apps")
    wanted = {name: None for name in report.migrations if not apps or name.partition(".")[0] in apps}
    return MigrationReport(
        tuple(wanted), tuple(found for found in report.findings if found.migration in wanted)
    )


def _recorded_migrations(*, server_version: int) -> list[RecordedMigration]:
    """Return all migrations of the project, in the order in which they are applied.

    Args:
        server_version: major version of PostgreSQL, by which Django chooses its SQL.
    """
    connection = _offline_postgresql(server_version)
    loader, run_python, separate = _schema_operations()
    nodes = dict.fromkeys(
        node for leaf in sorted(loader.graph.leaf_nodes()) for node in loader.graph.forwards_plan(leaf)
    )
    state = loader.project_state([], at_end=False)
    found: list[RecordedMigration] = []
    for node in nodes:
        migration = loader.graph.nodes[node]
        path = str(getattr(sys.modules.get(migration.__module__), "__file__", None) or "")
        source = Path(path).read_text(encoding="utf-8") if path else ""
        lines = _lines_of_operations(source, len(migration.operations))
        steps: list[MigrationStep] = []
        with connection.schema_editor(collect_sql=True, atomic=False) as editor:
            for operation, line in zip(migration.operations, lines, strict=True):
                before = state.clone()
                operation.state_forwards(migration.app_label, state)
                collected = len(editor.collected_sql)
                reason = _unseen(operation, run_python, separate)
                if not reason:
                    try:
                        operation.database_forwards(migration.app_label, editor, before, state)
                    except Exception as error:  # noqa: BLE001 - whatever the operation raises is a finding
                        kind = type(operation).__name__
                        reason = f"{kind} stops without a database: {type(error).__name__}"
                steps += [MigrationStep(sql, line) for sql in editor.collected_sql[collected:]]
                steps += [MigrationStep(line=line, not_judged=reason)] if reason else []
            collected = len(editor.collected_sql)
        # Indexes and foreign keys, which Django executes at the end of the migration.
        steps += [MigrationStep(sql, lines[-1] if lines else 0) for sql in editor.collected_sql[collected:]]
        found.append(
            RecordedMigration(
                ".".join(node),
                steps,
                _relative(path),
                comments_of_python(source),
                in_transaction=migration.atomic,
            )
        )
    return found


def _unseen(operation: FromDjango, run_python: type, separate: type) -> str:
    """Return why an operation cannot be judged; empty if it can."""
    if isinstance(operation, separate):
        inner: FromDjango = operation
        return next(
            filter(None, (_unseen(one, run_python, separate) for one in inner.database_operations)), ""
        )
    if isinstance(operation, run_python):
        code: FromDjango = operation
        name = getattr(code.code, "__qualname__", "a function")
        return "" if name.endswith("RunPython.noop") else f"RunPython executes {name}"
    return ""


def _lines_of_operations(source: str, count: int) -> list[int]:
    """Return the line of each operation; 0 if the list is computed."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == "operations" for target in node.targets)
            and isinstance(node.value, ast.List)
            and len(node.value.elts) == count
        ):
            return [element.lineno for element in node.value.elts]
    return [0] * count


def _relative(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _offline_postgresql(version: int) -> FromDjango:
    """Return a database of PostgreSQL that is never connected to, for its SQL.

    Args:
        version: major version, by which Django chooses its SQL.

    Raises:
        ConfigurationError: the driver psycopg is not installed.
    """
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    try:
        from django.db.backends.postgresql.base import DatabaseWrapper
    except ImproperlyConfigured as error:
        raise ConfigurationError("install psycopg: Django needs it to write SQL for PostgreSQL") from error
    registry: FromDjango = connections
    settings: dict[str, FromDjango] = {
        **registry.settings["default"],
        "NAME": "offline",
        "OPTIONS": {},
        "HOST": "",
        "PORT": "",
    }
    wrapper: FromDjango = DatabaseWrapper(settings, alias="default")

    def refuse() -> None:
        raise RuntimeError("there is no database")

    def compose(sql: str, params: Sequence[FromDjango] | None) -> str:
        # Django asks a cursor to do this.
        editor = wrapper.SchemaEditorClass(wrapper, collect_sql=True)
        return sql % tuple([str(editor.quote_value(value)) for value in params]) if params else sql

    wrapper.connect = refuse
    wrapper.ops.compose_sql = compose
    attributes: dict[str, FromDjango] = wrapper.__dict__
    attributes["pg_version"] = version * 10_000  # a cached property, which would ask the server
    return wrapper


def _schema_operations() -> tuple[FromDjango, type, type]:
    """Return a loader of all migrations, and the classes ``RunPython`` and ``SeparateDatabaseAndState``."""
    from django.db.migrations import RunPython, SeparateDatabaseAndState
    from django.db.migrations.loader import MigrationLoader

    return MigrationLoader(None, ignore_no_migrations=True), RunPython, SeparateDatabaseAndState
