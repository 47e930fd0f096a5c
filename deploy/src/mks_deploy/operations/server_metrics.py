"""Metrics of PostgreSQL and Redis: WAL archiving, memory, evictions, rejected connections, queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from mks_deploy.operations.backup import BackupError, Database

__all__ = ["RedisReading", "Servers", "read_servers"]

_ROLES: Final = {"state": "MKS_REDIS_URL", "cache": "MKS_CACHE_URL"}
_SINGLE: Final = frozenset({"redis", "rediss", "unix"})
_BROKER: Final = "MKS_CELERY_BROKER_URL"
_TIMEOUT: Final = 5
_MOST_NAMES: Final = 10_000
"""Maximum number of keys examined in the broker's database, which may hold the sessions too."""
_LARGEST: Final = 5
"""Maximum number of queues reported."""
_ARCHIVE: Final = """
SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
FROM pg_stat_archiver
"""


_STANDBY: Final = """
SELECT coalesce(bool_or(NOT active), false) FROM pg_replication_slots WHERE slot_type = 'physical'
"""


@dataclass(frozen=True, slots=True)
class RedisReading:
    """Metrics of one Redis server.

    Attributes:
        memory: used share of ``maxmemory``; 0 if there is no limit.
        evicts: whether a full server evicts keys instead of rejecting writes.
        evicted: keys evicted since its start.
        rejected: connections rejected beyond ``maxclients`` since its start.
    """

    memory: float
    evicts: bool
    evicted: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Servers:
    """Metrics of all servers.

    Attributes:
        archive_fails: whether PostgreSQL failed to archive its newest segment; ``None`` if unknown.
        redis: metrics by role, ``state`` and ``cache``; ``None`` if the server does not respond.
        queues: share of ``maxmemory`` held by each of the largest queues of Celery's broker. ``unacked`` holds
            messages that a worker has received and not acknowledged yet.
        standby_absent: whether PostgreSQL keeps changes for a standby that does not follow.
    """

    archive_fails: bool | None
    redis: Mapping[str, RedisReading | None]
    queues: Mapping[str, float] = field(default_factory=dict)
    standby_absent: bool = False


def read_servers(environ: Mapping[str, str]) -> Servers:
    """Read the servers named by the application's variables, except Sentinel and Cluster."""
    urls = {role: _value(name, environ) for role, name in _ROLES.items()}
    redis = {role: _redis(url) for role, url in urls.items() if url.partition("://")[0] in _SINGLE}
    archive_fails, standby_absent = _of_database(environ)
    return Servers(archive_fails, redis, _queues(_value(_BROKER, environ)), standby_absent)


def _of_database(environ: Mapping[str, str]) -> tuple[bool | None, bool]:
    try:
        with Database.from_environment(environ).connection() as connection:
            found = [connection.execute(query.encode()).fetchone() for query in (_ARCHIVE, _STANDBY)]
    except BackupError:
        return None, False
    archive, standby = (bool(row and row[0]) for row in found)
    return archive, standby


def _redis(url: str) -> RedisReading | None:
    import redis

    try:
        # The library's name of the option, and the client's.
        url = url.replace("?ca_file=", "?ssl_ca_certs=")
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT) as client:
            said = {**client.info("memory"), **client.info("stats")}
    except (redis.RedisError, OSError, ValueError):
        return None
    limit = int(said.get("maxmemory", 0))
    return RedisReading(
        memory=int(said["used_memory"]) / limit if limit else 0.0,
        evicts=said.get("maxmemory_policy") != "noeviction",
        evicted=int(said["evicted_keys"]),
        rejected=int(said["rejected_connections"]),
    )


def _queues(url: str) -> dict[str, float]:
    import redis

    # Celery's form of a socket URL.
    url = url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    if url.partition("://")[0] not in _SINGLE:
        return {}
    held: dict[str, int] = {}
    try:
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT) as client:
            limit = int(client.info("memory").get("maxmemory", 0))
            lists = islice(client.scan_iter(count=1000, _type="list"), _MOST_NAMES)
            for key in (*lists, b"unacked"):
                # Kombu appends the priority to the queue name.
                name = key.partition(b"\x06\x16")[0].decode("utf-8", "replace")
                held[name] = held.get(name, 0) + (client.memory_usage(key) or 0)
    except (redis.RedisError, OSError, ValueError):
        return {}
    largest = sorted(held, key=held.__getitem__, reverse=True)[:_LARGEST]
    return {name: held[name] / limit for name in largest if limit and held[name]}


def _value(name: str, environ: Mapping[str, str]) -> str:
    if file := environ.get(f"{name}_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    return environ.get(name, "")
