"""One server as seen by this process: connections, breaker and probe, shared by all its clients.

The registry issues leases. Equal targets (and the same client object passed in twice) share an endpoint while at
least one lease on it exists, so that an outage is detected, reported and probed once. All databases of a server
share one endpoint with a pool each; different credentials, TLS options or clocks make separate endpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from mks_hardening._core.backend.cluster_shards import ClusterShards
from mks_hardening._core.backend.redis_connect import close_async, connect, connect_async
from mks_hardening._core.backend.redis_errors import reason_of
from mks_hardening._core.backend.redis_types import Client
from mks_hardening._core.backend.redis_url import RedisTarget
from mks_hardening._core.process.after_fork import ModuleLock, register_after_fork
from mks_hardening._core.resilience.breaker import (
    GROUP_RECOVERY_TIMEOUT,
    RECOVERY_TIMEOUT,
    CircuitBreaker,
)
from mks_hardening._core.resilience.deadline_socket import call_deadline
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import Clock, RedisLike

if TYPE_CHECKING:
    import asyncio

__all__ = ["Endpoint", "EndpointLease", "lease"]

_FAIR_SHARE: Final = 0.5
_logger: Final = logging.getLogger("mks_hardening.redis")


class Endpoint:
    """Shared state for one server; created and removed by the registry.

    Args:
        key: its place in the registry.
        target: the server, or ``None`` for a client object that is used unchanged.
        foreign: that client object.
        clock: monotonic clock of the breaker.

    Attributes:
        clients: the synchronous clients that calls have created, by database.
    """

    def __init__(
        self, key: Hashable, target: RedisTarget | None, foreign: RedisLike | None, clock: Clock
    ) -> None:
        self.key = key
        self.target = target
        self.clock = clock  # also keeps the clock alive: its identity is part of the registry's key
        self.address = type(foreign).__name__ if target is None else target.address
        self.closed = False
        self.answered = False  # whether the server ever responded
        self._foreign = foreign
        self._met: tuple[tuple[str, int], ...] = ()
        self._leases: set[EndpointLease] = set()
        self.clients: dict[int, Client] = {}
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Shared]] = WeakKeyDictionary()
        group = target is not None and target.topology != "single"
        self.breaker = CircuitBreaker(
            "redis",
            endpoint=self.address,
            # A fake responds immediately and needs no recovery: the next call is its trial, so that it receives
            # only the commands that its owner sends.
            probe=None if target is None else self._probe,
            recovery_timeout=GROUP_RECOVERY_TIMEOUT if group else RECOVERY_TIMEOUT,
            clock=clock,
        )
        self.shards: ClusterShards | None = None
        self._cluster_reported = False
        if target is not None and target.topology == "cluster":
            self.shards = ClusterShards(lambda: self.client(0), lambda: self.budget, self._shard_breaker)
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the parent's connections in a forked child; they are neither used nor closed."""
        self._met = self._nodes_met()
        self._of_the_parent = (self.clients, self._by_loop)
        self.clients = {}
        self._by_loop = WeakKeyDictionary()

    @property
    def budget(self) -> float:
        """Smallest budget of all leases, in seconds: what a healthy server must meet."""
        return min((lease.budget for lease in tuple(self._leases)), default=RECOVERY_TIMEOUT)

    def fair_share(self) -> float:
        """Return the seconds that a server must have had before a timeout counts against it."""
        return self.budget * _FAIR_SHARE

    def client(self, database: int) -> Client:
        """Return the synchronous client, created by the first call within its deadline (a cluster connects)."""
        if self._foreign is not None:
            return self._foreign
        made = self.clients.get(database)
        if made is None and self.target is not None:
            fresh = connect(self._led_to(self.target, database))
            made = self.clients.setdefault(database, fresh)  # another thread may have been faster
            if made is not fresh:
                fresh.close()
        return made

    def async_client(self, lease: EndpointLease) -> Client:
        """Return the client of the running event loop; connections cannot move between loops."""
        import asyncio

        if self.target is None:
            return self._foreign
        clients = self._by_loop.setdefault(asyncio.get_running_loop(), {})
        shared = clients.get(lease.database)
        if shared is None:
            made = connect_async(self._led_to(self.target, lease.database), self.budget)
            shared = clients[lease.database] = _Shared(made)
        shared.users.add(lease)
        return shared.client

    def forget_connections(self) -> None:
        """Close idle connections: they lead to a server that is no longer the primary."""
        for client in tuple(self.clients.values()):
            pool = getattr(client, "connection_pool", None)
            if pool is not None:
                pool.disconnect(inuse_connections=False)

    def report_cluster(self) -> None:
        """Log once that the server is a cluster node: it responds, so nothing else would report the mistake."""
        if not self._cluster_reported:
            self._cluster_reported = True
            _logger.error("%s is a node of a cluster: the URL must begin with redis+cluster://", self.address)

    def release(self, lease: EndpointLease) -> None:
        """Release a lease; the last one closes everything except the clients of running event loops."""
        for loop, clients in list(self._by_loop.items()):
            for shared in _unused(clients, lease):
                # Only its own loop can close it; a loop that has ended has closed its sockets.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(_close_soon, loop, shared.client)
        with _registry.lock:
            self._leases.discard(lease)
            if self._leases or self.closed:
                return
            self.closed = True
            _registry.forget(self)
        self.breaker.retire()
        if self.shards is not None:
            self.shards.retire()
        self._close_clients()

    async def arelease(self, lease: EndpointLease) -> None:
        """Release a lease and wait until the connections of the running loop are closed."""
        import asyncio

        clients = self._by_loop.get(asyncio.get_running_loop())
        for shared in _unused(clients, lease) if clients else ():
            await close_async(shared.client)
        self.release(lease)

    def _led_to(self, target: RedisTarget, database: int) -> RedisTarget:
        """Return the target with the known cluster nodes in front: those in the URL may no longer exist."""
        hosts = tuple(dict.fromkeys((*self._nodes_met(), *target.hosts)))
        return target._replace(database=database, hosts=hosts)

    def _nodes_met(self) -> tuple[tuple[str, int], ...]:
        managers = [getattr(client, "nodes_manager", None) for client in tuple(self.clients.values())]
        met = [
            (str(node.host), int(node.port))
            for manager in managers
            if manager is not None
            for node in tuple(manager.nodes_cache.values())
        ]
        return tuple(met) or self._met

    def _shard_breaker(self, address: str, probe: Callable[[], object]) -> CircuitBreaker:
        return CircuitBreaker(
            "redis", endpoint=address, probe=probe, recovery_timeout=GROUP_RECOVERY_TIMEOUT, clock=self.clock
        )

    def _close_clients(self) -> None:
        clients, self.clients = self.clients, {}
        for client in clients.values():
            client.close()

    def _probe(self) -> None:
        call_deadline.enter(self.budget)
        try:
            client = self.client(next((lease.database for lease in tuple(self._leases)), 0))
            if self.shards is None:
                client.execute_command("PING")
            else:
                self.shards.probe_all(client)
        except BackendUnavailableError:
            raise
        except Exception as error:
            raise BackendUnavailableError("redis", reason_of(error) or "error", operation="PING") from error
        finally:
            call_deadline.leave()
            if self.closed:  # closed during the probe
                self._close_clients()


class EndpointLease:
    """Lease of one client on an endpoint, with its own budget."""

    __slots__ = ("__weakref__", "budget", "database", "endpoint")

    def __init__(self, endpoint: Endpoint, *, budget: float, database: int) -> None:
        self.endpoint = endpoint
        self.budget = budget
        self.database = database
        endpoint._leases.add(self)  # noqa: SLF001 - same module

    def client(self) -> Client:
        """Return the synchronous client."""
        return self.endpoint.client(self.database)

    def made(self) -> Client:
        """Return the synchronous client if a call has created it, else ``None``."""
        return self.endpoint.clients.get(self.database)

    def async_client(self) -> Client:
        """Return the client of the running event loop."""
        return self.endpoint.async_client(self)

    def end(self) -> None:
        """Release the lease; idempotent."""
        self.endpoint.release(self)

    async def aend(self) -> None:
        """Release the lease and close the clients of the running event loop."""
        await self.endpoint.arelease(self)

    def sibling(self, *, budget: float) -> EndpointLease:
        """Return another lease on the same endpoint."""
        with _registry.lock:
            if not self.endpoint.closed:
                return EndpointLease(self.endpoint, budget=budget, database=self.database)
        raise ConfigurationError("the RedisClient is closed", parameter="url_or_client")


class _Shared:
    """Asynchronous client of one loop and the leases that use it."""

    __slots__ = ("client", "users")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.users: set[EndpointLease] = set()


class _Registry:
    """The endpoints of this process. No foreign code runs under its lock."""

    def __init__(self) -> None:
        self.lock = ModuleLock()  # reentrant: a finalizer may enter on the same thread
        self.endpoints: dict[Hashable, Endpoint] = {}

    def lease(
        self, target: RedisTarget | None, foreign: RedisLike | None, *, budget: float, clock: Clock
    ) -> EndpointLease:
        key = (id(foreign) if target is None else target.server, id(clock))
        with self.lock:
            endpoint = self.endpoints.get(key)
            if endpoint is None:
                endpoint = self.endpoints[key] = Endpoint(key, target, foreign, clock)
            return EndpointLease(endpoint, budget=budget, database=0 if target is None else target.database)

    def forget(self, endpoint: Endpoint) -> None:
        # By its key: a finalizer that runs during an iteration would change what is iterated over.
        if self.endpoints.get(endpoint.key) is endpoint:
            del self.endpoints[endpoint.key]


_registry: Final = _Registry()


def lease(
    target: RedisTarget | None, foreign: RedisLike | None, *, budget: float, clock: Clock
) -> EndpointLease:
    """Return a lease on the endpoint of this target, or of this client."""
    return _registry.lease(target, foreign, budget=budget, clock=clock)


def _unused(clients: dict[int, _Shared], lease: EndpointLease) -> list[_Shared]:
    """Remove the lease from all clients, and the clients without users from the dictionary; return the latter."""
    unused: list[_Shared] = []
    for database in list(
        clients
    ):  # of items it would create tuples, at which a finalizer may run and change it
        shared = clients.get(database)
        if shared is not None and lease in shared.users:
            shared.users.discard(lease)
            if not shared.users:
                clients.pop(database, None)
                unused.append(shared)
    return unused


def _close_soon(loop: asyncio.AbstractEventLoop, client: Client) -> None:
    task = loop.create_task(close_async(client))
    _closing.add(task)  # asyncio keeps only weak references to tasks
    task.add_done_callback(_closing.discard)


_closing: Final[set[object]] = set()
