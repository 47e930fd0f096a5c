"""SQLite transactions that begin where SQLAlchemy begins them.

Python's ``sqlite3`` begins a transaction only at the first INSERT, UPDATE, DELETE or REPLACE. Earlier reads, DDL
and SAVEPOINT run outside of it: two transactions that read a value and add 1 lose an update, and a ``begin_nested``
that was rolled back persists. BEGIN is therefore sent when SQLAlchemy begins, as its documentation recommends for
this driver (``dialects/sqlite.html``, "Serializable isolation / Savepoints / Transactional DDL"), but by the
engine's
dialect: an event listener would add its cost to every statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import choice

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import PoolProxiedConnection

__all__ = ["begin_transactions"]

_OPTION: Final = "sqlite_transaction_mode"
_MODES: Final = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")


def begin_transactions(engine: Engine) -> None:
    """Send BEGIN for every transaction of ``engine``, in the mode of its execution option."""
    from sqlalchemy.engine.characteristics import ConnectionCharacteristic

    class TransactionMode(ConnectionCharacteristic):
        """The execution option, stored in the driver's ``isolation_level``."""

        transactional = True

        def set_characteristic(self, dialect: Dialect, dbapi_conn: DBAPIConnection, value: Any) -> None:
            del dialect
            choice(value, _MODES, parameter=_OPTION)
            if dbapi_conn.isolation_level is not None:  # AUTOCOMMIT
                dbapi_conn.isolation_level = value

        def reset_characteristic(self, dialect: Dialect, dbapi_conn: DBAPIConnection) -> None:
            del dialect
            if dbapi_conn.isolation_level is not None:
                dbapi_conn.isolation_level = ""

        def get_characteristic(self, dialect: Dialect, dbapi_conn: DBAPIConnection) -> Any:
            del dialect
            return dbapi_conn.isolation_level or _MODES[0]

    dialect: Any = engine.dialect  # this engine's own dialect instance
    dialect.connection_characteristics = dialect.connection_characteristics.union(
        {_OPTION: TransactionMode()}
    )
    dialect.do_begin = _begin
    given = engine.get_execution_options()
    if _OPTION in given:  # create_engine applied it before the dialect knew the option
        engine.update_execution_options(**{_OPTION: given[_OPTION]})


def _begin(connection: PoolProxiedConnection) -> None:
    mode: str | None = connection.dbapi_connection.isolation_level  # type: ignore[union-attr]  # never detached here
    driver: Any = connection.driver_connection
    # None means AUTOCOMMIT, or an application that sends BEGIN itself; `autocommit` is new in Python 3.12.
    if mode is None or driver.in_transaction or getattr(driver, "autocommit", None) is True:
        return
    cursor = connection.cursor()
    try:
        cursor.execute(f"BEGIN {mode}")
    except Exception:
        # In SQLAlchemy 2.0 all tasks share the single connection of an in-memory database: another task began
        # first.
        if not driver.in_transaction:
            raise
    finally:
        cursor.close()
