"""Reset of what a statement left in the session, before its connection returns to the pool.

A rollback undoes neither SET nor an advisory lock, so the next user of the connection would inherit them. Only
connections on which such a statement ran are reset; the others need no further round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

from mks_hardening.db.engine._session_state import session_state_of
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine, ExecutionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

__all__ = ["inspect_statements", "refuse_session_state", "reset_session_state"]

_CHANGED: Final = "mks_session_state"
# DISCARD ALL without the parts that a driver relies on (its prepared statements); all of it runs in a transaction.
_RESET: Final = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD TEMP"
)
_OWN_LISTENERS: Final = ("sqlalchemy.", "mks_hardening.")


def reset_session_state(engine: Engine) -> None:
    """Reset the connections of ``engine`` that a statement has changed when they return to the pool."""
    from sqlalchemy import event

    def note(statement: str, context: ExecutionContext | None) -> None:
        if context is not None and session_state_of(statement):
            context.root_connection.info[_CHANGED] = True

    def returned(connection: DBAPIConnection, record: ConnectionPoolEntry, state: PoolResetState) -> None:
        # Without access to the event loop the connection cannot be reset; SQLAlchemy then terminates it.
        if state.terminate_only or not record.info.pop(_CHANGED, False):
            return
        connection.rollback()
        _run_script(connection, _RESET, driver=engine.dialect.driver)
        connection.commit()
        # RESET ALL has also undone what listeners of the application set when the connection was opened. They run
        # again for a new connection.
        if _has_foreign_listener(engine):
            record.invalidate(soft=True)

    inspect_statements(engine, note)
    event.listen(engine.pool, "reset", returned)


def refuse_session_state(engine: Engine) -> None:
    """Reject statements of ``engine`` whose effect would belong to other clients of a transaction pooler."""

    def check(statement: str, _context: ExecutionContext | None) -> None:
        state = session_state_of(statement)
        if state is not None:
            raise ConfigurationError(
                f"transaction_pooling does not allow a statement that leaves {state.name} behind: the next "
                f"transaction of this connection may run in another session. Use {state.instead}",
                parameter="transaction_pooling",
            )

    inspect_statements(engine, check)


def inspect_statements(engine: Engine, inspect: Callable[[str, ExecutionContext | None], object]) -> None:
    """Call ``inspect`` with each statement of ``engine`` before it is sent.

    The methods of the engine's dialect are replaced: a listener would add its cost to every statement.
    """
    dialect: Any = engine.dialect
    execute, execute_many = dialect.do_execute, dialect.do_executemany
    execute_no_params = dialect.do_execute_no_params

    def do_execute(
        cursor: Any, statement: str, parameters: Any, context: ExecutionContext | None = None
    ) -> None:
        inspect(statement, context)
        execute(cursor, statement, parameters, context)

    def do_executemany(
        cursor: Any, statement: str, parameters: Any, context: ExecutionContext | None = None
    ) -> None:
        inspect(statement, context)
        execute_many(cursor, statement, parameters, context)

    def do_execute_no_params(cursor: Any, statement: str, context: ExecutionContext | None = None) -> None:
        inspect(statement, context)
        execute_no_params(cursor, statement, context)

    dialect.do_execute = do_execute
    dialect.do_executemany = do_executemany
    dialect.do_execute_no_params = do_execute_no_params


def _run_script(connection: DBAPIConnection, script: str, *, driver: str) -> None:
    """Send several statements in one round trip."""
    if driver == "asyncpg":
        # Its cursors prepare each statement, and PostgreSQL prepares only one at a time.
        adapted: Any = connection
        adapted.run_async(methodcaller("execute", script))
        return
    cursor = connection.cursor()
    cursor.execute(script)
    cursor.close()


def _has_foreign_listener(engine: Engine) -> bool:
    listeners: Any = engine.pool.dispatch
    return any(not one.__module__.startswith(_OWN_LISTENERS) for one in listeners.connect)
