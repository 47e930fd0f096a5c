"""Revisions of Alembic as recorded migrations: each runs without a database, and its SQL is recorded.

Loops, helper functions and computed arguments are therefore seen; Python source is never interpreted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, cast

from mks_check.migrations._waivers import comments_of_python
from mks_check.migrations.recorded_migration import MigrationStep, RecordedMigration
from mks_hardening._core.optional_imports import optional
from mks_hardening.db.migrations._recording_connection import RecordingConnection, RowsNeededError
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Dialect

__all__ = ["alembic_revisions"]


def alembic_revisions(location: str) -> list[RecordedMigration]:
    """Return all revisions, oldest first.

    Args:
        location: ``alembic.ini``, or the folder that contains ``versions``.

    Raises:
        ConfigurationError: there is no such file or folder, or a revision cannot be imported.
        MissingDependencyError: Alembic is not installed.
    """
    with optional("alembic", extra="alembic"):
        import alembic  # noqa: F401 - only whether it is installed
    scripts = _script_directory(location)
    try:
        revisions = list(scripts.walk_revisions())[::-1]
    except Exception as error:
        raise ConfigurationError(
            f"the revisions of {location} cannot be loaded ({type(error).__name__}: {error})",
            parameter="location",
        ) from error
    if not revisions:
        raise ConfigurationError(f"{location} has no revisions", parameter="location")
    return [_record(script) for script in revisions]


def _script_directory(location: str) -> ScriptDirectory:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    path = Path(location)
    if path.is_file():
        return ScriptDirectory.from_config(Config(str(path)))
    if not path.is_dir():
        raise ConfigurationError(f"there is no {location}", parameter="location")
    return ScriptDirectory(str(path))


@dataclass
class _Recorder:
    """File for the SQL of Alembic; each text gets the line of the revision that caused it."""

    path: str
    steps: list[MigrationStep] = field(default_factory=list[MigrationStep])

    def write(self, text: str) -> None:
        if text.strip():
            self.steps.append(MigrationStep(text, self._line(sys._getframe(1))))  # noqa: SLF001 - the documented way to a caller's line

    def flush(self) -> None:
        pass

    def column_altered(self, table: str, column: str, kind: str) -> None:
        self.steps.append(MigrationStep(stated_types=((table, column, kind),)))

    def rows_read(self) -> None:
        line = self._line(sys._getframe(1))  # noqa: SLF001 - as above
        step = MigrationStep(line=line, not_judged="it reads rows, and what it does with them is not seen")
        if step not in self.steps:
            self.steps.append(step)

    def stopped(self, error: Exception) -> None:
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self.path:
                line = trace.tb_lineno
            trace = trace.tb_next
        needs = f"needs {error} of a database" if isinstance(error, RowsNeededError) else type(error).__name__
        self.steps.append(MigrationStep(line=line, not_judged=f"without a database it stops here: {needs}"))

    def _line(self, frame: FrameType | None) -> int:
        while frame is not None:
            if frame.f_code.co_filename == self.path:
                return frame.f_lineno
            frame = frame.f_back
        return 0


def _record(script: Script) -> RecordedMigration:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    path = str(script.path)
    recorder = _Recorder(str(script.module.__file__))
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "output_buffer": cast(TextIO, recorder), "transactional_ddl": True},
    )
    implementation: Any = context.impl
    # What ``op.get_bind()`` returns; without a database it would be None, and code that uses it would fail.
    implementation.connection = RecordingConnection(
        context.dialect, record=lambda sql: recorder.write(f"{sql};"), rows_read=recorder.rows_read
    )
    implementation.alter_column = _stating_types(
        implementation.alter_column, context.dialect, recorder.column_altered
    )
    upgrade: Callable[[], object] = script.module.upgrade
    try:
        with Operations.context(context):
            upgrade()
    except Exception as error:  # noqa: BLE001 - whatever the revision raises is a finding
        recorder.stopped(error)
    return RecordedMigration(
        name=str(script.revision),
        path=_relative(path),
        steps=recorder.steps,
        comments=comments_of_python(Path(path).read_text(encoding="utf-8")),
    )


def _stating_types(
    alter_column: Callable[..., None], dialect: Dialect, state: Callable[[str, str, str], None]
) -> Callable[..., None]:
    """Wrap ``alter_column``, whose SQL does not contain ``existing_type``."""

    def altering(table_name: str, column_name: str, **options: Any) -> None:
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.types import to_instance

        schema, existing = options.get("schema"), options.get("existing_type")
        if existing is not None:
            with suppress(SQLAlchemyError):  # a type without a name in this dialect
                table = f"{schema}.{table_name}" if schema not in {None, "public"} else table_name
                state(table, column_name, to_instance(existing).compile(dialect=dialect))
        alter_column(table_name, column_name, **options)

    return altering


def _relative(path: str) -> str:
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path
