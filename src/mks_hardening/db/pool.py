"""How many connections each process may keep, so that all processes together fit into the server."""

from __future__ import annotations

from typing import NamedTuple

from mks_hardening.exceptions import ConfigurationError

__all__ = ["PoolPlan", "plan_pool"]


class PoolPlan(NamedTuple):
    """Connections one process may open.

    Attributes:
        pool_size: connections that are kept open.
        max_overflow: further connections for a moment, closed when they come back.
    """

    pool_size: int
    max_overflow: int


def plan_pool(*, workers: int, threads: int, max_connections: int, reserved: int = 3) -> PoolPlan:
    """Share the server's connections out to the processes of an application.

    A thread needs one connection, now and then a second; when they do not all fit, threads wait for each other in
    the pool instead of being refused by the server.

    Args:
        workers: processes that open a pool of their own, background workers included.
        threads: threads in each process that use the database at the same time.
        max_connections: the server's ``max_connections``, or the share this application may take.
        reserved: connections left to administrators and migrations (PostgreSQL itself reserves three).

    Raises:
        ConfigurationError: there is not one connection for every process.
    """
    for name, value, least in (
        ("workers", workers, 1),
        ("threads", threads, 1),
        ("max_connections", max_connections, 1),
        ("reserved", reserved, 0),
    ):
        if type(value) is not int or value < least:
            raise ConfigurationError(f"{name} must be a whole number of at least {least}", parameter=name)
    share = (max_connections - reserved) // workers
    if share < 1:
        raise ConfigurationError(
            f"max_connections={max_connections} less {reserved} reserved is not enough for {workers} processes: "
            f"each needs at least one connection",
            parameter="max_connections",
        )
    pool_size = min(threads, share)
    return PoolPlan(pool_size, min(threads, share - pool_size))
