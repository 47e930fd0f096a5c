"""redis-py clients for checked targets, configured for our deadlines; the only module that creates them.

Retries are disabled everywhere: redis-py resends commands without a response, which applies an increment twice.
Whether a command may be retried is decided by ``guard``. Timeouts are those of the current call (``call_deadline``,
``asyncio``), so that clients with different budgets can share the connections.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Final

from mks_hardening._core.backend.redis_lean_client import (
    direct_async_client,
    direct_async_pool,
    direct_client,
    direct_pool,
)
from mks_hardening._core.backend.redis_types import Client, Options
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.resilience.connect import connect_within_deadline
from mks_hardening._core.resilience.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_url import RedisTarget

__all__ = [
    "MAX_CONNECTIONS",
    "OLDEST",
    "close_async",
    "connect",
    "connect_async",
    "connect_push",
    "prepare",
    "require_redis",
]

OLDEST: Final = (7, 3)
"""Oldest supported release of redis; the minimum of the extra."""
MAX_CONNECTIONS: Final = 200
"""Maximum connections to one server; if all are in use, a call waits for one within its budget."""


def require_redis() -> None:
    """Check early that a supported release of redis is installed.

    Raises:
        ConfigurationError: the installed release is too old for our options.
        MissingDependencyError: redis is not installed.
    """
    with optional("redis", extra="cache"):
        import redis
    if tuple(int(part) for part in redis.__version__.split(".")[:2]) < OLDEST:
        raise ConfigurationError(
            f"redis {redis.__version__} is too old, {'.'.join(map(str, OLDEST))} or later is required: "
            "pip install 'mks-hardening[cache]'",
            parameter="redis",
        )


def prepare(target: RedisTarget) -> None:
    """Import everything that calls need and check the files that the target names, without connecting.

    A child forked while another thread imports a module waits forever for that import lock, because the thread does
    not exist in the child. Calls must therefore import nothing, but redis-py does so when a pool or a connection is
    created.

    Raises:
        ConfigurationError: a certificate file is not usable.
    """
    import concurrent.futures.thread  # noqa: F401 - asyncio resolves names in its threads

    import redis.asyncio

    import mks_hardening._core.resilience.loop_time  # noqa: F401 - used by awaiting calls

    if target.tls or target.sentinel_tls:
        _check_certificates(dict(target.tls_options))
    options = _socket_options(target, tls=False)
    del options["driver_info"]  # its default reads the version of the installed package
    pools: tuple[Client, ...] = (redis.ConnectionPool, redis.asyncio.ConnectionPool)
    for pool in pools:
        pool(**options).make_connection()


def _check_certificates(options: Options) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = (options.get("ssl_ca_certs"), options.get("ssl_ca_path"), options.get("ssl_ca_data"))
    try:
        if any(authorities):
            context.load_verify_locations(*authorities)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"ca_file must be a readable file of PEM certificates: {authorities[0]!r} ({_why(error)})",
            parameter="ca_file",
        ) from None
    try:
        if options.get("ssl_certfile"):
            context.load_cert_chain(
                options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password") or ""
            )
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the client's certificate and key must be readable PEM files and match ({_why(error)})",
            parameter="ssl_certfile",
        ) from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def connect(target: RedisTarget) -> Client:
    """Return a synchronous client whose sockets obey the deadline of the call; may connect immediately."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = {**_options(target), "retry": Retry(NoBackoff(), 0)}
    make = {"single": _single, "sentinel": _sentinel, "cluster": _cluster}[target.topology]
    return _raw(make(target, options))


def connect_async(target: RedisTarget, budget: float) -> Client:
    """Return a client for the running event loop; all sentinels together must respond within the budget."""
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options = {**_options(target), "retry": Retry(NoBackoff(), 0)}
    if target.topology == "sentinel":
        return _raw(_async_sentinel(target, options, budget / len(target.hosts)))
    return _raw((_async_single if target.topology == "single" else _async_cluster)(target, options))


def connect_push(client: Client) -> Client:
    """Return a separate, connected RESP3 connection to the server of a synchronous client.

    It uses the client's credentials, TLS options and database, and the primary that Sentinel names. Its handshake
    observes the deadline of the call.
    """
    pool = client.connection_pool
    connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
    connection.connect()
    return connection


async def close_async(client: Client) -> None:
    """Close the client's connections, including those to the sentinels."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in getattr(manager, "sentinels", ()):
        await sentinel.aclose()


def _options(target: RedisTarget) -> Options:
    return {
        **_socket_options(target, tls=target.tls),
        "username": target.username,
        "password": target.password,
        "credential_provider": target.credential_provider,
        "max_connections": MAX_CONNECTIONS,
    }


def _sentinel_options(target: RedisTarget, options: Options) -> Options:
    return {
        **_socket_options(target, tls=target.sentinel_tls),
        "username": target.sentinel_username,
        "password": target.sentinel_password,
        "retry": options["retry"],
    }


def _socket_options(target: RedisTarget, *, tls: bool) -> Options:
    options: Options = {
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "decode_responses": False,
        "protocol": 2,
    }
    if not tls:
        # Send nothing before the first command. With TLS, something must be sent: it makes the client read the
        # session tickets, which redis-py would otherwise treat as an unexpected response.
        options["driver_info"] = None
        return options
    return options | {"ssl_cert_reqs": "required", "ssl_check_hostname": True} | dict(target.tls_options)


def _raw(client: Client) -> Client:
    """Return the client with raw responses, without redis-py's conversions."""
    callbacks = getattr(client, "response_callbacks", {})
    for command in list(callbacks):
        # The cluster clients parse the slot map and the command table with their own callbacks.
        if not command.startswith(("CLUSTER", "COMMAND")):
            del callbacks[command]
    return client


def _place(target: RedisTarget) -> Options:
    return {"path": target.path} if target.path else {"host": target.hosts[0][0], "port": target.hosts[0][1]}


def _single(target: RedisTarget, options: Options) -> Client:
    import redis
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

    base: Client = UnixDomainSocketConnection if target.path else SSLConnection if target.tls else Connection
    # A provider renews its credentials through events of redis-py's own pool.
    kind = direct_pool(redis.ConnectionPool) if target.credential_provider is None else redis.ConnectionPool
    pool = kind(connection_class=_with_deadline(base), db=target.database, **_place(target), **options)
    return direct_client(redis.Redis, refusal=redis.ResponseError).from_pool(pool)  # closes it as well


def _sentinel(target: RedisTarget, options: Options) -> Client:
    import redis
    from redis import sentinel
    from redis.connection import Connection, SSLConnection

    make: Client = sentinel.Sentinel
    group = make(())
    # A frozen sentinel must leave time for the others.
    ask = _with_deadline(SSLConnection if target.sentinel_tls else Connection, share=len(target.hosts))
    quick = _sentinel_options(target, options)
    group.sentinels = [
        redis.Redis.from_pool(redis.ConnectionPool(connection_class=ask, host=host, port=port, **quick))
        for host, port in target.hosts
    ]
    for one in group.sentinels:
        _spell_out_errors(one, wait=False)
    base: Client = sentinel.SentinelManagedSSLConnection if target.tls else sentinel.SentinelManagedConnection
    return group.master_for(
        target.service,
        redis_class=direct_client(redis.Redis, refusal=redis.ResponseError),
        db=target.database,
        connection_class=_with_deadline(base),
        **options,
    )


def _cluster(target: RedisTarget, options: Options) -> Client:
    from redis.cluster import ClusterNode, RedisCluster
    from redis.connection import Connection, SSLConnection

    connection_class = _without_cluster_sleep(
        _with_deadline(SSLConnection if target.tls else Connection), wait=False
    )
    node: Client = ClusterNode
    host, port = target.hosts[0]
    client = RedisCluster(
        # Only a client created from a URL uses the pool class.
        url=f"{'rediss' if target.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}",
        startup_nodes=[node(*place) for place in target.hosts],
        connection_pool_class=partial(_pool_of, connection_class),
        # Whether a partially covered cluster serves requests is decided by its servers.
        require_full_coverage=False,
        **options,
    )
    manager: Client = client.nodes_manager
    make = manager.create_redis_node

    def make_raw(*args: Client, **kwargs: Client) -> Client:
        return _raw(make(*args, **kwargs))

    manager.create_redis_node = make_raw
    for known in (*manager.nodes_cache.values(), *manager.startup_nodes.values()):
        if known.redis_connection is not None:
            _raw(known.redis_connection)
    return client


def _pool_of(connection_class: Client, /, **options: Client) -> Client:
    import redis

    return redis.ConnectionPool(**{**options, "connection_class": connection_class})


def _async_single(target: RedisTarget, options: Options) -> Client:
    from redis.asyncio import connection as made

    kind: Client = (
        made.UnixDomainSocketConnection
        if target.path
        else made.SSLConnection
        if target.tls
        else made.Connection
    )
    # As in _single.
    pools = (
        direct_async_pool(made.ConnectionPool) if target.credential_provider is None else made.ConnectionPool
    )
    pool = pools(connection_class=kind, db=target.database, **_place(target), **options)
    return _direct_async().from_pool(pool)


def _direct_async() -> Client:
    import redis
    from redis import asyncio as aredis

    return direct_async_client(aredis.Redis, refusal=redis.ResponseError)


def _async_sentinel(target: RedisTarget, options: Options, patience: float) -> Client:
    from redis.asyncio.sentinel import Sentinel

    quick = _sentinel_options(target, options) | {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "ssl": target.sentinel_tls,
    }
    make: Client = Sentinel
    group = make(target.hosts, sentinel_kwargs=quick)
    for one in group.sentinels:
        _spell_out_errors(one, wait=True)
    return group.master_for(
        target.service, redis_class=_direct_async(), db=target.database, ssl=target.tls, **options
    )


def _spell_out_errors(sentinel: Client, *, wait: bool) -> None:
    """Include the cause in redis-py's error that no sentinel knows the primary: since 8 it names classes only."""
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    class SentinelError(RedisConnectionError):
        def __repr__(self) -> str:
            return f"{self} ({self.__cause__!r})"

    masters = sentinel.sentinel_masters

    def sentinel_masters() -> Client:
        try:
            return masters()
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise SentinelError(str(error)) from error.__context__

    async def awaited_masters() -> Client:
        try:
            return await masters()
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise SentinelError(str(error)) from error.__context__

    sentinel.sentinel_masters = awaited_masters if wait else sentinel_masters


def _async_cluster(target: RedisTarget, options: Options) -> Client:
    from inspect import signature

    from redis.asyncio.cluster import ClusterNode, RedisCluster
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    silent = {"driver_info": None} if "driver_info" in options else {}
    if "driver_info" not in signature(RedisCluster).parameters:  # before redis-py 8
        options = {name: value for name, value in options.items() if name != "driver_info"}
    nodes = [ClusterNode(*place) for place in target.hosts]
    client: Client = RedisCluster(startup_nodes=nodes, ssl=target.tls, require_full_coverage=False, **options)
    manager = client.nodes_manager
    connection_class = _without_cluster_sleep(client.connection_kwargs["connection_class"], wait=True)
    client.connection_kwargs["connection_class"] = connection_class
    for node in manager.startup_nodes.values():
        node.connection_class = connection_class
    for arguments in (
        client.connection_kwargs,
        *(node.connection_kwargs for node in manager.startup_nodes.values()),
    ):
        # redis-py 7 warns about these two, which it sets itself.
        if arguments.pop("lib_name", None) is not None:
            arguments.pop("lib_version", None)
            arguments.update(silent)
    learn = client.commands_parser.initialize

    async def learn_from_anyone(default_node: Client) -> None:
        # redis-py queries only the first primary, and never starts while that one is unavailable.
        others = [node for node in manager.nodes_cache.values() if node is not default_node]
        for node in (default_node, *others):
            try:
                await learn(node)
            except (RedisConnectionError, RedisTimeoutError):
                if node is others[-1]:
                    raise
            else:
                manager.default_node = node
                return

    client.commands_parser.initialize = learn_from_anyone
    return client


def _without_cluster_sleep(base: Client, *, wait: bool) -> Client:
    """Return the connection class without the error for which cluster clients sleep 0.25 s, deadline or not."""
    from redis.exceptions import ClusterDownError, ResponseError

    def read_response(self: Client, *args: Client, **kwargs: Client) -> Client:
        try:
            return base.read_response(self, *args, **kwargs)
        except ClusterDownError as error:
            raise ResponseError(f"CLUSTERDOWN {error}") from None

    async def awaited_response(self: Client, *args: Client, **kwargs: Client) -> Client:
        try:
            return await base.read_response(self, *args, **kwargs)
        except ClusterDownError as error:
            raise ResponseError(f"CLUSTERDOWN {error}") from None

    return type(base.__name__, (base,), {"read_response": awaited_response if wait else read_response})


def _with_deadline(base: Client, *, share: int = 1) -> Client:
    """Return the connection class with sockets that obey the call's deadline; one operation takes ``1 / share``."""
    from redis.connection import Connection, UnixDomainSocketConnection

    class Reaching(Connection):
        """Connection that resolves the name and tries the addresses within the deadline."""

        def _connect(self) -> Client:
            return connect_within_deadline(self.host, self.port, self._prepare, share=share)

        def _prepare(self, sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.socket_keepalive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                options: Client = self.socket_keepalive_options
                for option, value in options.items():
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)

    if base is Connection:
        below: Client = Reaching
    elif issubclass(base, UnixDomainSocketConnection):
        below = base
    else:  # before Connection in the MRO, and after the classes that add TLS or query the sentinels
        below = type(base.__name__, (base, Reaching), {})

    def connect(self: Client) -> DeadlineSocket:
        left = call_deadline.remaining()
        if left is not None:
            self.socket_connect_timeout = left / share
        try:
            return DeadlineSocket(below._connect(self), share=share)  # noqa: SLF001 - creates the socket
        finally:
            if below is not Reaching:  # a TLS handshake, or a socket of this machine
                call_deadline.waited(left)

    members: dict[str, object] = {"_connect": connect}
    if base is UnixDomainSocketConnection:
        # redis-py 8 reports both when connecting takes too long, and fails if they are missing.
        members |= {"host": None, "port": None}
    return type(f"Deadline{base.__name__}", (below,), members)
