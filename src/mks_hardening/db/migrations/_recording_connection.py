"""Connection for migrations that run without a database: records statements, and returns no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from mks_hardening.exceptions import MksHardeningError

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.sql import ClauseElement

__all__ = ["RESUMABLE", "RecordingConnection", "RowsNeededError"]

RESUMABLE: Final = "/* mks: resumable */"
"""Marks a step that finds out itself whether it is done, so that the migration can be repeated."""


class RowsNeededError(MksHardeningError, RuntimeError):
    """The migration needs something that only a database can return."""


class RecordingConnection:
    """Stands for ``op.get_bind()``.

    Args:
        dialect: dialect of the SQL.
        record: called with each statement.
        rows_read: called when the migration asks for rows.
    """

    closed = False

    def __init__(
        self, dialect: Dialect, *, record: Callable[[str], object], rows_read: Callable[[], object]
    ) -> None:
        self.dialect = dialect
        self._record = record
        self._rows_read = rows_read

    def execute(self, statement: ClauseElement, *_: object, **__: object) -> _NoRows:
        """Record a statement."""
        from sqlalchemy.sql import ClauseElement

        if not isinstance(statement, ClauseElement):
            raise RowsNeededError("execute")
        self._record(str(statement.compile(dialect=self.dialect)))
        return _NoRows(self._rows_read)

    def exec_driver_sql(self, statement: str, *_: object, **__: object) -> _NoRows:
        """Record a statement in text form."""
        self._record(str(statement))
        return _NoRows(self._rows_read)

    def scalar(self, statement: ClauseElement, *_: object, **__: object) -> None:
        """Record a statement; there is no value."""
        self.execute(statement).scalar()

    def scalars(self, statement: ClauseElement, *_: object, **__: object) -> _NoRows:
        """Record a statement; there are no values."""
        return self.execute(statement).scalars()

    def execution_options(self, **_: object) -> RecordingConnection:
        """Ignore options."""
        return self

    def get_bind(self, *_: object, **__: object) -> RecordingConnection:
        """Stand for a session too."""
        return self

    def in_transaction(self) -> bool:
        """Whether a transaction is open: the one of the migration is."""
        return True

    def begin_nested(self) -> AbstractContextManager[object]:
        """Do nothing: a savepoint releases no lock."""
        return nullcontext()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RowsNeededError(name)


class _NoRows:
    """Result without rows."""

    rowcount = 0

    def __init__(self, rows_read: Callable[[], object]) -> None:
        self._rows_read = rows_read

    def fetchall(self) -> list[Any]:
        self._rows_read()
        return []

    all = fetchall

    def first(self) -> None:
        self._rows_read()

    fetchone = one_or_none = scalar = scalar_one_or_none = first

    def one(self) -> Any:
        raise RowsNeededError("one")

    scalar_one = one

    def scalars(self, *_: object) -> _NoRows:
        return self

    mappings = scalars

    def __iter__(self) -> Iterator[Any]:
        self._rows_read()
        return iter(())
