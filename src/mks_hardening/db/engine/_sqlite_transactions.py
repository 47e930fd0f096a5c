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
# Every transaction of SQLite is serializable, which satisfies the weaker levels of the SQL standard (ISO 9075-2).
_SATISFIED_LEVELS: Final = ("READ COMMITTED", "REPEATABLE READ")
_SERIALIZABLE: Final = "SERIALIZABLE"


def begin_transactions(engine: Engine) -> None:
    """Send BEGIN for every transaction of ``engine``, in the mode of its execution option."""
    from sqlalchemy.engine.characteristics import ConnectionCharacteristic

    class TransactionMode(ConnectionCharacteristic):
        """The execution option, stored in the driver's ``isolation_level``."""

        transactional = True

        def set_characteristic(self, dialect: Dialect, dbapi_conn: DBAPIConnection, value: object) -> None:
            del dialect
            choice(value, _MODES, parameter=_OPTION)
            if dbapi_conn.isolation_level is not None:  # AUTOCOMMIT
                dbapi_conn.isolation_level = value

        def reset_characteristic(self, dialect: Dialect, dbapi_conn: DBAPIConnection) -> None:
            del dialect
            if dbapi_conn.isolation_level is not None:
                dbapi_conn.isolation_level = ""

        def get_characteristic(self, dialect: Dialect, dbapi_conn: DBAPIConnection) -> object:
            del dialect
            return dbapi_conn.isolation_level or _MODES[0]

    dialect: Any = engine.dialect  # this engine's own dialect instance
    dialect.connection_characteristics = dialect.connection_characteristics.union(
        {_OPTION: TransactionMode()}
    )
    dialect.do_begin = _begin
    _accept_weaker_levels(dialect)
    given = engine.get_execution_options()
    if _OPTION in given:  # create_engine applied it before the dialect knew the option
        engine.update_execution_options(**{_OPTION: given[_OPTION]})


def _accept_weaker_levels(dialect: Any) -> None:
    """Accept the isolation levels of PostgreSQL, so that one configuration serves both databases."""
    set_level, level_values = dialect.set_isolation_level, dialect.get_isolation_level_values

    def get_isolation_level_values(connection: DBAPIConnection) -> list[str]:
        return [*level_values(connection), *_SATISFIED_LEVELS]

    def set_isolation_level(connection: DBAPIConnection, level: str) -> None:
        mode = connection.isolation_level
        set_level(connection, _SERIALIZABLE if level in _SATISFIED_LEVELS else level)
        # The dialect resets the attribute in which the transaction mode is stored.
        if mode and connection.isolation_level is not None:
            connection.isolation_level = mode

    dialect.get_isolation_level_values = get_isolation_level_values
    dialect.set_isolation_level = set_isolation_level


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
