"""Access to the application's database for commands."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mks_hardening.settings import HardeningSettings

__all__ = ["opened_database"]


@contextmanager
def opened_database(settings: HardeningSettings, *, command: str, table: str) -> Generator[Engine]:
    """Open the database of ``DATABASE_URL`` and yield its engine, which is disposed of at the end.

    Args:
        settings: settings of the application.
        command: name of the command, for the server's list of connections.
        table: table that must exist; named in errors.

    Raises:
        BackendUnavailableError: the database server is unavailable.
        ConfigurationError: there is no database, or it is not the application's.
    """
    from mks_hardening.db import hardened_engine

    url = settings.db.url
    if url is None:
        raise ConfigurationError(
            "DATABASE_URL must point to the application's database, for example sqlite:///app.db or "
            "postgresql+psycopg://user@host/name",
            parameter="url",
        )
    try:
        engine = hardened_engine(url, application_name=f"mks-hardening {command}")
        try:
            _check(engine, table)
            yield engine
        finally:
            engine.dispose()
    except Exception as error:
        # By module name, without importing SQLAlchemy here; ``from None``: a driver's message may contain the URL.
        if type(error).__module__ != "sqlalchemy.exc":
            raise
        from mks_hardening._core.database.error_text import error_summary
        from mks_hardening.tasks import is_transient

        if is_transient(error):
            raise BackendUnavailableError("database", "error", detail=error_summary(error)) from None
        raise ConfigurationError(
            f"the table {table} cannot be used ({error_summary(error)}); "
            "DATABASE_URL must point to the application's database",
            parameter="url",
        ) from None


def _check(engine: Engine, table: str) -> None:
    """Reject a missing SQLite file, which SQLite would create, and a database without the application's table."""
    name = engine.url.database or ""
    if (
        engine.dialect.name == "sqlite"
        and not name.startswith(("file:", ":memory:"))
        and not Path(name).exists()
    ):
        raise ConfigurationError(
            f"there is no database {name}; DATABASE_URL must point to the application's database",
            parameter="url",
        )
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, table):
            raise ConfigurationError(
                f"there is no table {table}; DATABASE_URL must point to the application's database",
                parameter="table",
            )
