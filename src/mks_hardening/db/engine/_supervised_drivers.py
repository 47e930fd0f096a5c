"""Driver methods that wait for the server, wrapped so that a ``ClientDeadline`` supervises them.

psycopg waits in a single method (``Connection.wait``, sync and async). psycopg2 is written in C and has no such
method, so each method that talks to the server is wrapped. asyncpg talks through a protocol object. ``wait``,
``_try_cancel`` and ``_protocol`` are not public API of the drivers; a test checks that they exist.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast

from mks_hardening.db.engine._client_deadline import NO_RESPONSE, ClientDeadline, DriverWait

if TYPE_CHECKING:
    from asyncio import BaseTransport

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["psycopg2_connection", "supervise"]

S = TypeVar("S")
Method: TypeAlias = Callable[..., Any]

_OF_CONNECTION: Final = ("commit", "rollback", "tpc_commit", "tpc_prepare", "tpc_recover", "tpc_rollback")
_OF_CURSOR: Final = ("callproc", "copy_expert", "copy_from", "copy_to", "execute", "executemany")
_OF_PROTOCOL: Final = (
    "bind",
    "bind_execute",
    "bind_execute_many",
    "close_portal",
    "close_statement",
    "copy_in",
    "copy_out",
    "execute",
    "prepare",
    "query",
)
_CURSOR: Final = "cursor"
_TRY_CANCEL: Final = "_try_cancel"  # psycopg calls it when the caller is cancelled or interrupted
_OF_STREAM: Final = ("fetchall", "fetchmany", "fetchone", "scroll")


class _Connection(Protocol):
    """A connection of any driver, with the wait state attached to it."""

    mks_wait: DriverWait

    def fileno(self) -> int: ...


class _Cursor(Protocol):
    connection: _Connection


class _Extensions(Protocol):
    connection: type
    cursor: type


class _Asyncpg(Protocol):
    """The attributes of an asyncpg connection that this module uses."""

    _protocol: object
    _transport: BaseTransport


def supervise(engine: Engine, deadline: ClientDeadline) -> None:
    """Supervise every connection that ``engine`` opens from now on."""
    from sqlalchemy import event

    classes: dict[type, type] = {}

    def connecting(dialect: Dialect, *_: object) -> None:
        # It only rejects: returning a connection would skip later listeners, such as those that add passwords.
        if deadline.is_lost():
            # Delayed: a caller that retries without a pause would keep a CPU or an event loop busy.
            _sleep(dialect, deadline.between)
            if deadline.is_lost():
                raise dialect.loaded_dbapi.OperationalError(NO_RESPONSE)

    def connected(_connection: object, record: ConnectionPoolEntry) -> None:
        deadline.mark_reachable()
        connection: Any = record.driver_connection
        plain = cast(type, connection.__class__)
        if callable(getattr(plain, "wait", None)):
            if plain not in classes:
                classes[plain] = _supervised_psycopg(plain, deadline)
            # psycopg has no connection factory; its connection classes are Python classes without slots.
            connection.__class__ = classes[plain]
        elif hasattr(plain, "_protocol"):
            _supervise_asyncpg(connection, deadline)

    event.listen(engine, "do_connect", connecting)
    # Inserted first, because other listeners already talk to the server.
    event.listen(engine.pool, "connect", connected, insert=True)


def _sleep(dialect: Dialect, seconds: float) -> None:
    if not dialect.is_async:
        time.sleep(seconds)
        return
    from asyncio import sleep

    from sqlalchemy.util import await_only

    await_only(sleep(seconds))


def _supervise_asyncpg(connection: _Asyncpg, deadline: ClientDeadline) -> None:
    transport, protocol = connection._transport, connection._protocol  # noqa: SLF001 - see the module docstring
    wait = DriverWait(deadline, transport.get_extra_info("socket").fileno())
    connection._protocol = _AsyncpgProtocol(protocol, wait)  # noqa: SLF001 - see the module docstring


class _AsyncpgProtocol:
    """Proxy for the protocol of one connection."""

    def __init__(self, protocol: object, wait: DriverWait) -> None:
        self._protocol = protocol
        self.mks_wait = wait
        for name in _OF_PROTOCOL:
            if hasattr(protocol, name):  # not all versions have every method
                method = _supervised(getattr(type(protocol), name), lambda _: wait)
                setattr(self, name, partial(method, protocol))

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)


def psycopg2_connection(extensions: _Extensions, given: object, deadline: ClientDeadline) -> object:
    """Return a ``connection_factory`` for psycopg2 whose connections and cursors are supervised.

    Args:
        extensions: ``psycopg2.extensions``.
        given: the caller's factory, or None; a class is subclassed, any other callable is returned unchanged.
        deadline: supervisor of the engine.
    """
    plain = given or extensions.connection
    if not isinstance(plain, type):
        return plain
    plain_cursor: Method = getattr(plain, _CURSOR)

    def of_connection(connection: _Connection) -> DriverWait | None:
        return _wait_of(connection, deadline)

    def of_cursor(cursor: _Cursor) -> DriverWait | None:
        return _wait_of(cursor.connection, deadline)

    cursor = _subclass(extensions.cursor, _OF_CURSOR, of_cursor)
    # Only named cursors fetch from the server; the others hold all rows on the client.
    stream = _subclass(cursor, _OF_STREAM, of_cursor)
    supervised = _subclass(plain, _OF_CONNECTION, of_connection)

    def make_cursor(self: _Connection, name: str | None = None, **options: object) -> object:
        options.setdefault("cursor_factory", cursor if name is None else stream)
        return plain_cursor(self, name, **options)

    return type(plain.__name__, (supervised,), {_CURSOR: make_cursor})


def _supervised_psycopg(plain: type, deadline: ClientDeadline) -> type:
    def of_connection(connection: _Connection) -> DriverWait | None:
        return _wait_of(connection, deadline)

    supervised = _subclass(plain, ("wait",), of_connection)
    try_cancel: Method | None = getattr(plain, _TRY_CANCEL, None)
    if try_cancel is not None:  # not all versions have it
        # It cancels over a separate connection, which shutting down this socket does not end.
        setattr(supervised, _TRY_CANCEL, _cancelling(try_cancel, of_connection, deadline.patience))
    return supervised


def _cancelling(
    try_cancel: Method, wait_of: Callable[[_Connection], DriverWait | None], patience: float
) -> Method:
    def is_unresponsive(connection: _Connection) -> bool:
        if _cancels_in_time():
            return False
        wait = wait_of(connection)
        return wait is not None and not wait.is_responding(within=patience / 4)

    if iscoroutinefunction(try_cancel):

        async def later(connection: _Connection, *, timeout: float = patience) -> None:  # noqa: ASYNC109 - as it is called
            from asyncio import to_thread

            if not await to_thread(is_unresponsive, connection):
                await try_cancel(connection, timeout=min(timeout, patience))

        return later

    def now(connection: _Connection, *, timeout: float = patience) -> None:
        if not is_unresponsive(connection):
            try_cancel(connection, timeout=min(timeout, patience))

    return now


def _cancels_in_time() -> bool:
    """Whether libpq is 17 or later: older versions wait forever for a silent server and block all threads."""
    capabilities: object = getattr(sys.modules.get("psycopg._capabilities"), "capabilities", None)
    ask: object = getattr(capabilities, "has_cancel_safe", None)  # not all versions have it
    return callable(ask) and bool(ask())


def _wait_of(connection: _Connection, deadline: ClientDeadline) -> DriverWait | None:
    """Wait state of the connection, created at its first operation; None if closed (the driver reports that)."""
    try:
        return connection.mks_wait
    except AttributeError:
        with suppress(Exception):
            connection.mks_wait = DriverWait(deadline, connection.fileno())
            return connection.mks_wait
    return None


def _subclass(plain: type, names: tuple[str, ...], wait_of: Callable[[S], DriverWait | None]) -> type:
    methods = {name: _supervised(getattr(plain, name), wait_of) for name in names}
    return type(plain.__name__, (plain,), {"__module__": plain.__module__, **methods})


def _supervised(method: Method, wait_of: Callable[[S], DriverWait | None]) -> Method:
    if iscoroutinefunction(method):

        @wraps(method)
        async def later(self: S, *args: object, **kwargs: object) -> object:
            with wait_of(self) or nullcontext():
                return await method(self, *args, **kwargs)

        return later

    @wraps(method)
    def now(self: S, *args: object, **kwargs: object) -> object:
        with wait_of(self) or nullcontext():
            return method(self, *args, **kwargs)

    return now
