"""Migrations of a Django project as recorded migrations: their SQL is collected without a database."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from mks_hardening.contrib.django_app._django import FromDjango, offline_postgresql, schema_operations
from mks_hardening.db import MigrationStep, RecordedMigration
from mks_hardening.db.migrations._waivers import comments_of_python

__all__ = ["recorded_migrations"]


def recorded_migrations(*, server_version: int) -> list[RecordedMigration]:
    """Return all migrations of the project, in the order in which they are applied.

    Args:
        server_version: major version of PostgreSQL, by which Django chooses its SQL.
    """
    connection = offline_postgresql(server_version)
    loader, run_python, separate = schema_operations()
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
