"""redis-py's client and pool without the books they keep about each command.

Its retries (off here), metrics and events around a connection cost more than the round trip to a server next door.
What it looks at before a connection is used stays: whether it lives, with nothing unread.
"""

from __future__ import annotations

from typing import Final

from mks_hardening._core.backend.redis_types import Client

__all__ = ["direct_client", "direct_pool"]

# What redis-py's pool keeps its connections by; none of it is promised to be there in its next version.
_INSIDE: Final = ("_available_connections", "_checkpid", "_in_use_connections", "_lock")


def direct_client(base: Client, *, refusal: type[Exception]) -> Client:
    """The class of a client that sends a command and returns the answer, and nothing besides.

    Args:
        base: redis-py's class.
        refusal: what is raised when the server has answered with an error.
    """

    def execute_command(self: Client, *command: object, **_: object) -> Client:
        pool = self.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_packed_command(connection.pack_command(*command), check_health=False)
            return connection.read_response()
        except BaseException as error:
            # An abort in between leaves an answer to come, which the next caller would take for its own.
            if not isinstance(error, refusal):
                connection.disconnect()
            raise
        finally:
            pool.release(connection)

    return type(base.__name__, (base,), {"execute_command": execute_command})


def direct_pool(base: Client) -> Client:
    """The class of a pool that hands out what is idle; redis-py's own where that keeps its connections otherwise.

    Args:
        base: redis-py's class.
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
        except BaseException:  # an abort in between too: one that is not given back is lost to all
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


def _is_usable(connection: Client) -> bool:
    """Whether it is open with nothing to be read: what nobody asked for would be taken for the next answer."""
    try:
        return connection._sock is not None and not connection.can_read()  # noqa: SLF001 - it would connect, unasked
    except Exception:  # noqa: BLE001 - redis-py's own errors, those of sockets and of TLS: it is replaced
        return False
