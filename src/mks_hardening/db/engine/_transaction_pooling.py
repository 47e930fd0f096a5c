"""Connections through a pooler in transaction mode, such as PgBouncer: each transaction may run in another session.

The limits are therefore set at the start of each transaction instead of when the connection is opened, and the
driver prepares no statements, since another session would not know them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine, ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from mks_hardening.db.engine._connect_options import ConnectionLimits

__all__ = ["detect_pooler", "set_limits_at_begin", "unprepared_options"]

_logger: Final = logging.getLogger("mks_hardening.db")
_UNPREPARED: Final[dict[str, dict[str, object]]] = {
    "psycopg": {"prepare_threshold": None},
    # The first one belongs to asyncpg, the second one to SQLAlchemy.
    "asyncpg": {"statement_cache_size": 0, "prepared_statement_cache_size": 0},
}
_REJECTED: Final = "unsupported startup parameter"  # message of PgBouncer


def unprepared_options(driver: str) -> dict[str, object]:
    """Connection options with which a driver prepares no statements."""
    return dict(_UNPREPARED.get(driver, {}))


def set_limits_at_begin(engine: Engine, limits: ConnectionLimits) -> None:
    """Set the limits for each transaction of ``engine``; under AUTOCOMMIT there is none to set them for."""
    # One statement: drivers that prepare it accept no more. Names and values are ours.
    parts = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.of_server.items())
    dialect: Any = engine.dialect
    begin = dialect.do_begin

    def do_begin(connection: PoolProxiedConnection) -> None:
        begin(connection)
        driver: Any = connection.dbapi_connection
        if not driver.autocommit:
            cursor = connection.cursor()
            cursor.execute(f"SELECT {parts}")
            cursor.close()

    dialect.do_begin = do_begin


def detect_pooler(engine: Engine, limits: ConnectionLimits) -> None:
    """Reject a pooler that rejects the limits, and warn of one that drops them."""
    from sqlalchemy import event

    known: list[bool] = []

    def connected(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        if known or not limits.statement:
            return
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid(), current_setting('statement_timeout') = '0'")
        [[session, is_lost]] = cursor.fetchall()
        cursor.close()
        connection.rollback()
        known.append(True)
        # A pooler gives its clients numbers of its own.
        if is_lost and session != _announced_session(record.driver_connection):
            _logger.warning(
                "A pooler drops the limits of hardened_engine, so statements may run and wait without limit. Pass "
                "transaction_pooling=True, which sets them for each transaction"
            )

    def failed(context: ExceptionContext) -> None:
        if context.connection is None and _REJECTED in str(context.original_exception):
            raise ConfigurationError(
                "url leads to a pooler such as PgBouncer, which rejects limits of the connection; pass "
                "transaction_pooling=True, which sets them for each transaction",
                parameter="transaction_pooling",
            )

    event.listen(engine.pool, "connect", connected)
    event.listen(engine, "handle_error", failed)  # a dialect event, which adds no cost to statements


def _announced_session(connection: Any) -> int:
    if hasattr(connection, "get_server_pid"):  # asyncpg
        pid: int = connection.get_server_pid()
        return pid
    backend: int = connection.info.backend_pid
    return backend
