"""Conversion of asyncpg's connection errors to ``OperationalError``, as every other driver raises it.

With SQLAlchemy, asyncpg raises a plain ``DBAPIError`` or an ``InterfaceError`` when the server closes the
connection, and an unwrapped ``OSError`` when the server is unreachable. A handler of ``OperationalError`` would
catch neither. SQLAlchemy 2.0 wraps no error at all that occurs while a connection is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mks_hardening.db.engine._client_deadline import NO_RESPONSE

if TYPE_CHECKING:
    from sqlalchemy import Engine, ExceptionContext
    from sqlalchemy.engine.interfaces import Dialect

__all__ = ["convert_connection_errors"]


def convert_connection_errors(engine: Engine) -> None:
    """Raise ``OperationalError`` when a connection of ``engine`` is lost or cannot be opened."""
    from sqlalchemy import event

    # Both are dialect events, which add no cost to statements.
    event.listen(engine, "do_connect", _connecting)
    event.listen(engine, "handle_error", _failed)


def _connecting(dialect: Dialect, _record: object, _args: object, options: dict[str, Any]) -> None:
    dbapi: Any = dialect.loaded_dbapi
    connect = options.get("async_creator_fn", dbapi.asyncpg.connect)

    async def connect_or_convert(*args: object, **given: object) -> object:
        try:
            return await connect(*args, **given)
        except OSError as error:  # includes TimeoutError
            message = NO_RESPONSE if isinstance(error, TimeoutError) else str(error)
            raise dbapi.OperationalError(message) from error
        except dbapi.asyncpg.ProtocolViolationError as error:  # a pooler that rejects limits, as with libpq
            raise dbapi.OperationalError(str(error)) from error

    options["async_creator_fn"] = connect_or_convert


def _failed(context: ExceptionContext) -> BaseException | None:
    from sqlalchemy.exc import DBAPIError, OperationalError

    known = context.sqlalchemy_exception
    if not context.is_disconnect or not isinstance(known, DBAPIError) or isinstance(known, OperationalError):
        return None
    return OperationalError(
        known.statement,
        known.params,
        context.original_exception,
        hide_parameters=known.hide_parameters,
        connection_invalidated=True,
    )
