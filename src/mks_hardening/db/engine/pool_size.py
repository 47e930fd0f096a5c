"""How many connections each process may keep, so that all processes together fit into the server."""

from __future__ import annotations

from dataclasses import dataclass

from mks_hardening._core.checks import whole_number
from mks_hardening.exceptions import ConfigurationError

__all__ = ["PoolPlan", "plan_pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """Connections one process may open.

    Attributes:
        pool_size: connections that are kept open.
        max_overflow: further connections for a moment, closed when they come back.
    """

    pool_size: int
    max_overflow: int


def plan_pool(
    *, workers: int, threads: int, max_connections: int, reserved: int = 3, generations: int = 1
) -> PoolPlan:
    """Share the server's connections out to the processes of an application.

    A thread needs one connection, now and then a second; when they do not all fit, threads wait for each other in
    the pool instead of being refused by the server.

    Args:
        workers: processes that open a pool of their own, background workers included.
        threads: threads in each process that use the database at the same time.
        max_connections: the server's ``max_connections``, or the share this application may take.
        reserved: connections left to administrators and migrations (PostgreSQL itself reserves three).
        generations: sets of workers that run at the same time. 2 where a release starts the new workers before the
            old ones have ended (rolling or blue-green deployment, USR2 of gunicorn).

    Raises:
        ConfigurationError: there is not one connection for every process.
    """
    whole_number(workers, parameter="workers", minimum=1)
    whole_number(threads, parameter="threads", minimum=1)
    whole_number(max_connections, parameter="max_connections", minimum=1)
    whole_number(reserved, parameter="reserved", minimum=0)
    whole_number(generations, parameter="generations", minimum=1)
    processes = workers * generations
    share = (max_connections - reserved) // processes
    if share < 1:
        raise ConfigurationError(
            f"max_connections={max_connections} less {reserved} reserved is not enough for {processes} processes: "
            f"each needs at least one connection",
            parameter="max_connections",
        )
    # A thread that holds two (a request and its audit record) may overflow for a moment, as far as there is room.
    pool_size = min(threads, share)
    return PoolPlan(pool_size=pool_size, max_overflow=min(threads, share - pool_size))
