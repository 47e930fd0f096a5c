"""redis-py clients for checked URLs, made to obey our deadlines; the one door to redis-py.

Retries are off everywhere: redis-py repeats what was sent and not answered, which applies an increment twice.
Whether something may be tried again is the guard's decision.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening._core.lazy import optional

if TYPE_CHECKING:
    from mks_hardening._core.redis_url import RedisUrl

__all__ = ["close_async", "connect", "connect_async", "require_redis"]

_MAX_CONNECTIONS: Final = 200


def require_redis() -> None:
    """Fail early and clearly.

    Raises:
        MissingDependencyError: redis is not installed.
    """
    with optional("redis", extra="cache"):
        import redis  # noqa: F401 - only to see whether it is there


def connect(url: RedisUrl, timeout: float) -> Any:
    """A synchronous client whose sockets obey the deadline of the call. May talk to the servers at once."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = {**_options(url, timeout), "retry": Retry(NoBackoff(), 0)}
    make = {"single": _single, "sentinel": _sentinel, "cluster": _cluster}[url.topology]
    return _raw(make(url, options))


def connect_async(url: RedisUrl, timeout: float) -> Any:
    """A client for the running event loop."""
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options = {**_options(url, timeout), "retry": Retry(NoBackoff(), 0)}
    make = {"single": _async_single, "sentinel": _async_sentinel, "cluster": _async_cluster}[url.topology]
    return _raw(make(url, options))


async def close_async(client: Any) -> None:
    """Close the client's connections, those to the sentinels too."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in getattr(manager, "sentinels", ()):
        await sentinel.aclose()


def _options(url: RedisUrl, timeout: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": url.username,
        "password": url.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "decode_responses": False,
        "protocol": 2,
    }
    if not url.tls:
        # No word before the first command. With TLS one is needed: it makes the client read the session tickets,
        # which redis-py would otherwise take for an answer that nobody asked for.
        options["driver_info"] = None
    else:
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": url.ca_file}
    return options


def _raw(client: Any) -> Any:
    """Answers as the server gave them, without redis-py's conversions."""
    callbacks = getattr(client, "response_callbacks", {})
    for command in list(callbacks):
        # The cluster clients read the map of slots and commands through their own callbacks.
        if not command.startswith(("CLUSTER", "COMMAND")):
            del callbacks[command]
    return client


def _place(url: RedisUrl) -> dict[str, Any]:
    return {"path": url.path} if url.path else {"host": url.hosts[0][0], "port": url.hosts[0][1]}


def _single(url: RedisUrl, options: dict[str, Any]) -> Any:
    import redis
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

    base: Any = UnixDomainSocketConnection if url.path else SSLConnection if url.tls else Connection
    pool = redis.ConnectionPool(
        connection_class=_with_deadline(base),
        db=url.database,
        max_connections=_MAX_CONNECTIONS,
        **_place(url),
        **options,
    )
    return redis.Redis.from_pool(pool)  # closes it as well


def _sentinel(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis import sentinel

    base: Any = sentinel.SentinelManagedSSLConnection if url.tls else sentinel.SentinelManagedConnection
    # All sentinels together must fit into one call.
    patience = options["socket_timeout"] / len(url.hosts)
    quick = {"socket_timeout": patience, "socket_connect_timeout": patience, "retry": options["retry"]}
    group: Any = sentinel.Sentinel
    return group(url.hosts, sentinel_kwargs=quick).master_for(
        url.service, db=url.database, connection_class=_with_deadline(base), **options
    )


def _cluster(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis.cluster import ClusterNode, RedisCluster
    from redis.connection import Connection, SSLConnection

    connection_class = _with_deadline(SSLConnection if url.tls else Connection)

    node: Any = ClusterNode
    host, port = url.hosts[0]
    return RedisCluster(
        # Only a client made from a URL uses the pool class.
        url=f"{'rediss' if url.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}",
        startup_nodes=[node(*place) for place in url.hosts],
        connection_pool_class=partial(_pool_of, connection_class),
        **options,
    )


def _pool_of(connection_class: Any, **options: Any) -> Any:
    import redis

    return redis.ConnectionPool(**{**options, "connection_class": connection_class})


def _async_single(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis import asyncio as aredis

    if url.path:
        return aredis.Redis(unix_socket_path=url.path, db=url.database, **options)
    return aredis.Redis(**_place(url), db=url.database, ssl=url.tls, **options)


def _async_sentinel(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis.asyncio.sentinel import Sentinel

    quick = {"socket_timeout": options["socket_timeout"] / len(url.hosts), "retry": options["retry"]}
    group: Any = Sentinel
    return group(url.hosts, sentinel_kwargs=quick).master_for(
        url.service, db=url.database, ssl=url.tls, **options
    )


def _async_cluster(url: RedisUrl, options: dict[str, Any]) -> Any:
    from redis.asyncio.cluster import ClusterNode, RedisCluster

    nodes = [ClusterNode(*place) for place in url.hosts]
    return RedisCluster(startup_nodes=nodes, ssl=url.tls, **options)


def _with_deadline(base: Any) -> Any:
    """The connection class, with sockets that obey the deadline of the call."""

    def connect(self: Any) -> DeadlineSocket:
        left = call_deadline.remaining()
        if left is not None:
            self.socket_connect_timeout = left
        return DeadlineSocket(base._connect(self))  # noqa: SLF001 - the one method that makes the socket

    return type(f"Deadline{base.__name__}", (base,), {"_connect": connect})
