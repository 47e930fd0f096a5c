"""Capacity on paper: from the cost of a request and a number of users to workers, connections, memory and disk.

Costs are read from a file, which ``tools/bench_app.py --costs`` writes for the reference application. Little's law
gives the requests under way, and no processor is planned to be busier than ``BUSY``, because waits grow without
bound as a server becomes fully busy.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import Final, NamedTuple

__all__ = [
    "BUSY",
    "FASTEST",
    "CapacityError",
    "Costs",
    "Limit",
    "Load",
    "Machine",
    "Size",
    "limits_of",
    "read_costs",
    "reference_costs",
    "size_for",
]

BUSY: Final = 0.6
"""Share of the time that a processor may be busy in the busiest hour: the rest is for bursts."""
FASTEST: Final = 10_000
"""Requests per second up to which limits are listed."""
_THREADS: Final = 16
_GENERATIONS: Final = 2
"""Sets of workers that run at the same time during a release."""
_RESERVED: Final = 13
"""Connections for administrators, backups and migrations."""
_SPARE: Final = 1.5
"""Factor on what is under way on average (Little's law), and on memory of Redis (fragmentation)."""
_ROUND_TRIP_MS: Final = 0.5
"""What a statement waits for the network besides the processor time of PostgreSQL."""
_COUNTER_BYTES: Final = 117
"""Memory of Redis for one counter with an expiry time."""
_COUNTERS: Final = 4
"""Counters of one active user: two groups of rate limits with two windows each."""


class CapacityError(ValueError):
    """The file of costs cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Mean cost of one request, and what is stored for a user.

    Attributes:
        application_ms: processor time of the application in milliseconds; so are the next three.
        nginx_ms: of nginx.
        postgresql_ms: of PostgreSQL.
        redis_ms: of Redis.
        statements: SQL statements.
        redis_commands: commands to Redis.
        redis_bytes: bytes to and from Redis.
        log_bytes: bytes of logs.
        response_bytes: bytes of the response.
        session_bytes: memory of Redis for one signed-in user.
        cached_bytes: memory of Redis for one entry of the cache.
    """

    application_ms: float
    nginx_ms: float
    postgresql_ms: float = 0
    redis_ms: float = 0
    statements: float = 0
    redis_commands: float = 0
    redis_bytes: float = 0
    log_bytes: float = 0
    response_bytes: float = 0
    session_bytes: float = 0
    cached_bytes: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Users of a site.

    Attributes:
        users: accounts.
        active: share of them that works with the site in the busiest minute.
        pause: seconds between two requests of one of them.
        cached: entries of the cache.
        busy_hours: a day has as many requests as this number of busiest hours.
    """

    users: int
    active: float = 0.1
    pause: float = 30
    cached: int = 20_000
    busy_hours: float = 5

    @property
    def requests(self) -> float:
        """Requests per second in the busiest minute."""
        return self.users * self.active / self.pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one host has.

    Attributes:
        cores: processors of a host; the database has a host of its own size.
        connections: ``max_connections`` of PostgreSQL.
        redis_gib: memory of one Redis server in GiB.
        network_mbit: network of a host in Mbit/s.
        disk_gib: disk for a day of logs in GiB.
    """

    cores: int = 8
    connections: int = 200
    redis_gib: float = 4
    network_mbit: float = 1000
    disk_gib: float = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a site needs.

    Attributes:
        requests: requests per second in the busiest minute.
        workers: processes of the application, on all hosts; one keeps about one core busy.
        threads: threads of each.
        web_hosts: hosts of the application with nginx.
        database_cores: cores that PostgreSQL keeps busy, with the reserve of ``BUSY``.
        connections: to PostgreSQL without a pooler, with two versions during a release.
        pooled: connections of PgBouncer in transaction mode, on all hosts.
        redis_mib: memory of Redis.
        shards: Redis servers that share the keys; 1 needs no cluster.
        log_gib: logs a day.
    """

    requests: float
    workers: int
    threads: int
    web_hosts: int
    database_cores: int
    connections: int
    pooled: int
    redis_mib: int
    shards: int
    log_gib: float


class Limit(NamedTuple):
    """Something that is used up, and the requests per second at which it is."""

    name: str
    requests: float


def size_for(costs: Costs, load: Load, machine: Machine | None = None) -> Size:
    """Return what a load needs."""
    machine = machine or Machine()
    rate = load.requests
    workers = max(2, _whole(rate * costs.application_ms / 1000 / BUSY))
    web_cores = rate * (costs.application_ms + costs.nginx_ms) / 1000 / BUSY
    pooled = 2 + _whole(_SPARE * rate * _database_seconds(costs))
    memory = _redis_bytes(costs, load)
    return Size(
        requests=rate,
        workers=workers,
        threads=_THREADS,
        web_hosts=max(1, _whole(web_cores / machine.cores)),
        database_cores=max(1, _whole(rate * costs.postgresql_ms / 1000 / BUSY)),
        connections=_GENERATIONS * workers * _THREADS + _RESERVED if costs.statements else 0,
        pooled=pooled + _RESERVED if costs.statements else 0,
        redis_mib=_whole(memory / 2**20),
        shards=max(
            1, _whole(memory / (machine.redis_gib * 2**30)), _whole(rate * costs.redis_ms / 1000 / BUSY)
        ),
        log_gib=rate * 3600 * load.busy_hours * costs.log_bytes / 2**30,
    )


def limits_of(costs: Costs, load: Load, machine: Machine | None = None) -> tuple[Limit, ...]:
    """Return the limits of one host of each kind, the first one that is reached in front.

    Each is the number of requests per second at which one thing is used up while all others were enough. What a
    request does not use has no limit.
    """
    machine = machine or Machine()
    return tuple(sorted(_limits(costs, load, machine), key=lambda limit: limit.requests))


def _limits(costs: Costs, load: Load, machine: Machine) -> Iterator[Limit]:
    web = costs.application_ms + costs.nginx_ms
    workers = (machine.connections - _RESERVED) // (_GENERATIONS * _THREADS)
    users_a_request = load.pause / load.active
    per_user = _redis_bytes(costs, replace(load, users=1, cached=0))
    left = machine.redis_gib * 2**30 - _redis_bytes(costs, replace(load, users=0))
    yield from (
        Limit(name, max(0.0, amount / use))
        for name, amount, use in (
            ("cores of one web host", machine.cores * BUSY, web / 1000),
            ("cores of the database host", machine.cores * BUSY, costs.postgresql_ms / 1000),
            (
                "connections to PostgreSQL without PgBouncer",
                workers * BUSY if costs.statements else 1,
                costs.application_ms / 1000 if costs.statements else 0,
            ),
            (
                "connections to PostgreSQL with PgBouncer",
                machine.connections - _RESERVED - 2,
                _SPARE * _database_seconds(costs),
            ),
            ("the core of one Redis server", BUSY, costs.redis_ms / 1000),
            ("memory of one Redis server", left, per_user * users_a_request),
            ("network of one Redis server", machine.network_mbit * 1e6 / 8, costs.redis_bytes),
            ("network of one web host", machine.network_mbit * 1e6 / 8, costs.response_bytes),
            ("disk of a day's logs", machine.disk_gib * 2**30, costs.log_bytes * 3600 * load.busy_hours),
        )
        if use > 0
    )


def read_costs(text: str) -> Costs:
    """Read the costs of routes, and return their mean by weight.

    Each table of ``[routes]`` has a ``weight`` and any field of ``Costs``; ``[stored]`` has ``session_bytes`` and
    ``cached_bytes``. What is not named costs nothing; ``application_ms`` and ``nginx_ms`` are required.

    Raises:
        CapacityError: not such a file.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CapacityError(f"not TOML: {error}") from None
    routes = tables.get("routes")
    if not isinstance(routes, Mapping) or not routes:
        raise CapacityError("[routes] must have a table for each route")
    stored = _numbers("stored", tables.get("stored", {}), _STORED)
    found = {
        name: _numbers(f"routes.{name}", table, (*_OF_A_ROUTE, "weight")) for name, table in routes.items()
    }
    for name, table in found.items():
        if missing := [each for each in ("weight", "application_ms", "nginx_ms") if each not in table]:
            raise CapacityError(f"routes.{name} lacks {', '.join(missing)}")
    whole = sum(table["weight"] for table in found.values())
    if whole <= 0:
        raise CapacityError("at least one route must have a weight above 0")
    means = {
        name: sum(table["weight"] * table.get(name, 0) for table in found.values()) / whole
        for name in _OF_A_ROUTE
    }
    return Costs(**means, **stored)


_STORED: Final = ("session_bytes", "cached_bytes")
_OF_A_ROUTE: Final = tuple(field.name for field in fields(Costs) if field.name not in _STORED)
_LARGEST: Final = 1e12


def _numbers(place: str, table: object, known: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(table, Mapping):
        raise CapacityError(f"{place} must be a table")
    for name, value in table.items():
        # True is a number in Python; nan is neither below nor above anything.
        if name in known and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST
        ):
            raise CapacityError(f"{place}.{name} must be a number from 0 to {_LARGEST:.0e}")
    return {name: float(table[name]) for name in known if name in table}


def reference_costs() -> str:
    """Return the text of the costs of the reference application, as its last run measured them."""
    return files("mks_deploy").joinpath("reference_costs.toml").read_text(encoding="utf-8")


def _whole(value: float) -> int:
    """Round up; a sum of floats that is a whole number up to its last digits is that number."""
    return math.ceil(round(value, 9))


def _database_seconds(costs: Costs) -> float:
    """Return how long a request has a connection of the database in transaction mode."""
    return (costs.postgresql_ms + costs.statements * _ROUND_TRIP_MS) / 1000


def _redis_bytes(costs: Costs, load: Load) -> float:
    counters = load.users * load.active * _COUNTERS * _COUNTER_BYTES if costs.redis_commands else 0
    return _SPARE * (load.users * costs.session_bytes + load.cached * costs.cached_bytes + counters)
