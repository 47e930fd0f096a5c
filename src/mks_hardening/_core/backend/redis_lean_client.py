"""redis-py's client and pool without their per-command bookkeeping.

Its retries (disabled here), metrics and connection events cost more than the round trip to a nearby server. The
check before a connection is used is kept: it must be open, with no unread data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mks_hardening._core.backend.redis_types import Client

__all__ = ["command_encoder", "direct_async_client", "direct_async_pool", "direct_client", "direct_pool"]

# Attributes in which redis-py's pool keeps its connections; none of them is guaranteed in its next release.
_INSIDE_ASYNC: Final = (
    "_available_connections",
    "_in_use_connections",
    "ensure_connection",
    "get_available_connection",
)
_INSIDE: Final = ("_available_connections", "_checkpid", "_in_use_connections", "_lock")


def direct_client(base: Client, *, refusal: type[Exception]) -> Client:
    """Return a client class that sends a command and returns the response, and does nothing else.

    Args:
        base: class of redis-py.
        refusal: exception raised when the server has responded with an error.
    """
    encoded = command_encoder()

    def execute_command(self: Client, *command: object, **_: object) -> Client:
        pool = self.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_packed_command(encoded(connection, command), check_health=False)
            return connection.read_response()
        except BaseException as error:
            # After an abort in between, the next caller would read this call's pending response as its own.
            if not isinstance(error, refusal):
                connection.disconnect()
            raise
        finally:
            pool.release(connection)

    return type(base.__name__, (base,), {"execute_command": execute_command})


def direct_async_client(base: Client, *, refusal: type[Exception]) -> Client:
    """Return ``direct_client`` for a class of ``redis.asyncio``."""
    encoded = command_encoder()

    async def execute_command(self: Client, *command: object, **_: object) -> Client:
        pool = self.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(encoded(connection, command), check_health=False)
            return await connection.read_response()
        except BaseException as error:
            if not isinstance(error, refusal):
                await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    return type(base.__name__, (base,), {"execute_command": execute_command})


def command_encoder() -> Callable[[Client, tuple[Client, ...]], Client]:
    """Return a function that encodes a command for a connection, in C if hiredis is installed.

    redis-py has hiredis do it too, but first copies the arguments twice and checks the type of each; its asyncio
    connections encode in Python.
    """
    try:
        from hiredis import pack_command  # pyright: ignore[reportUnknownVariableType]  # untyped result
    except ImportError:
        return lambda connection, command: connection.pack_command(*command)

    def encoded(connection: Client, command: tuple[Client, ...]) -> Client:
        name = command[0]
        if isinstance(name, str) and " " not in name:  # redis-py splits "SENTINEL MASTERS"
            try:
                return [pack_command(command)]
            except TypeError:
                pass  # an argument that redis-py converts or rejects
        return connection.pack_command(*command)

    return encoded


def direct_pool(base: Client) -> Client:
    """Return a pool class that hands out idle connections directly; ``base`` itself if its internals differ.

    Args:
        base: class of redis-py.
    """
    if not all(hasattr(base(), name) for name in _INSIDE):
        return base

    def get_connection(self: Client, *_: object, **__: object) -> Client:
        self._checkpid()
        with self._lock:
            idle = self._available_connections
            connection = idle.pop() if idle else None
            if connection is not None:
                self._in_use_connections.add(connection)
        if connection is None:
            return base.get_connection(self)
        try:
            if not _is_usable(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:  # an abort in between as well: a connection that is not returned is lost
            self.release(connection)
            raise
        return connection

    def release(self: Client, connection: Client) -> None:
        self._checkpid()
        with self._lock:
            if connection in self._in_use_connections and self.owns_connection(connection):
                self._in_use_connections.discard(connection)
                self._available_connections.append(connection)
                return
        base.release(self, connection)

    return type(base.__name__, (base,), {"get_connection": get_connection, "release": release})


def direct_async_pool(base: Client) -> Client:
    """Return ``direct_pool`` for a class of ``redis.asyncio``: no task can interrupt what does not wait.

    Args:
        base: class of redis-py.
    """
    if not all(hasattr(base(), name) for name in _INSIDE_ASYNC):
        return base

    async def get_connection(self: Client, *_: object, **__: object) -> Client:
        if not self._available_connections:
            return await base.get_connection(self)
        connection = self.get_available_connection()
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self: Client, connection: Client) -> None:
        if connection.should_reconnect():
            await base.release(self, connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)

    return type(base.__name__, (base,), {"get_connection": get_connection, "release": release})


def _is_usable(connection: Client) -> bool:
    """Whether the connection is open without unread data, which would be read as the next response."""
    try:
        return connection._sock is not None and not connection.can_read()  # noqa: SLF001 - can_read() would connect
    except Exception:  # noqa: BLE001 - errors of redis-py, sockets and TLS: the connection is replaced
        return False
