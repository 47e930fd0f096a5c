"""Pool size per process, so that all processes together stay within the server's connection limit."""

from __future__ import annotations

from dataclasses import dataclass

from mks_hardening._core.checks import whole_number
from mks_hardening.exceptions import ConfigurationError

__all__ = ["PoolPlan", "plan_pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """Number of connections that one process may open.

    Attributes:
        pool_size: connections that stay open.
        max_overflow: additional short-lived connections, closed when they are returned.
    """

    pool_size: int
    max_overflow: int


def plan_pool(
    *, workers: int, threads: int, max_connections: int, reserved: int = 3, generations: int = 1
) -> PoolPlan:
    """Divide the server's connections among the processes of an application.

    A thread needs one connection, and occasionally a second. If there are not enough, threads wait in the pool
    instead of being rejected by the server.

    Args:
        workers: number of processes with their own pool, including background workers.
        threads: threads per process that use the database at the same time.
        max_connections: the server's ``max_connections``, or this application's share of it.
        reserved: connections left for administrators and migrations (PostgreSQL itself reserves three).
        generations: sets of workers that run at the same time: 2 if a release starts the new workers before the
            old ones have ended (rolling or blue-green deployment, USR2 of gunicorn).

    Raises:
        ConfigurationError: there are fewer connections than processes.
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
    # A thread that holds two (a request and its audit record) may overflow briefly, as far as the share allows.
    pool_size = min(threads, share)
    return PoolPlan(pool_size=pool_size, max_overflow=min(threads, share - pool_size))
