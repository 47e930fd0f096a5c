"""Redis clients passed in by users: which are used unchanged, which are rebuilt, and which are rejected.

A client of redis-py or valkey has its own timeouts and retries, which would defeat our guarantees: one call could
take 25 s, and an increment whose response was lost is applied twice. Its connection arguments are therefore read to
build our own client for the same server; the client passed in is never used. Any other object with
``execute_command`` (fakeredis, small fakes) has no connections and is used unchanged.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Final, cast

from mks_hardening._core.backend.redis_types import Client, Options
from mks_hardening._core.backend.redis_url import RedisTarget
from mks_hardening._core.checks import offers
from mks_hardening.exceptions import ConfigurationError

__all__ = ["target_of"]

_PACKAGES: Final = ("redis", "valkey")
_DEFAULT_PORT: Final = 6379


def target_of(client: object) -> RedisTarget | None:
    """Return the target of a redis-py or valkey client; ``None`` for a client that is used unchanged.

    Raises:
        ConfigurationError: the object is not a client, is a fake that decodes its responses, or is a client that
            cannot be rebuilt from its arguments: custom connection class, replica, connect hook, overridden
            ``execute_command``.
    """
    offers(
        client,
        "execute_command",
        parameter="url_or_client",
        kind="a Redis URL, a RedisClient or a client with execute_command",
    )
    nodes: Client = getattr(client, "nodes_manager", None)
    if nodes is not None and _opens_sockets(client):
        return _cluster(client, nodes)
    if not _opens_sockets(client) and _is_asynchronous(client):
        raise _refused("an asynchronous fake has no synchronous methods; a synchronous fake serves both")
    pool: Client = getattr(client, "connection_pool", None)
    if pool is None:
        return None
    arguments: Mapping[str, Client] = getattr(pool, "connection_kwargs", {})
    if not _opens_sockets(client):
        if arguments.get("decode_responses"):
            raise _refused("a fake must not decode responses")
        return None
    connection: type = pool.connection_class
    if connection.__module__.partition(".")[0] not in _PACKAGES:
        raise _refused("it has a custom connection class")
    _check(client, arguments)
    if hasattr(pool, "service_name"):
        return _sentinel(pool, arguments)
    return RedisTarget(
        hosts=() if arguments.get("path") else (_place(arguments),),
        path=arguments.get("path") or "",
        database=int(arguments.get("db") or 0),
        **_credentials(arguments, tls="SSL" in connection.__name__),
    )


def _is_asynchronous(client: Client) -> bool:
    import inspect  # slow to import, and needed only here

    return inspect.iscoroutinefunction(client.execute_command)


def _opens_sockets(client: object) -> bool:
    """Whether the class comes from a package that opens sockets, or inherits from one and is not a fake."""
    packages = [kind.__module__.partition(".")[0] for kind in type(client).__mro__]
    return "fakeredis" not in packages and any(package in _PACKAGES for package in packages)


def _check(client: object, arguments: Mapping[str, Client]) -> None:
    method = getattr(type(client), "execute_command", None)
    # Instrumentation patches the method of the package's own class, and then covers our client as well.
    if type(client).__module__.partition(".")[0] not in _PACKAGES and (
        getattr(method, "__module__", "").partition(".")[0] not in _PACKAGES
    ):
        raise _refused(f"{type(client).__name__} overrides execute_command")
    if arguments.get("redis_connect_func") is not None:
        raise _refused("it has a redis_connect_func")


def _cluster(client: object, nodes: Client) -> RedisTarget:
    _check(client, {})
    arguments: Mapping[str, Client] = getattr(client, "connection_kwargs", None) or nodes.connection_kwargs
    startup: Iterable[Client] = nodes.startup_nodes.values()
    tls = bool(arguments.get("ssl")) or "SSL" in getattr(arguments.get("connection_class"), "__name__", "")
    return RedisTarget(
        topology="cluster",
        # The node map grows at runtime; sorted, so that two clients of one cluster are equal.
        hosts=tuple(sorted((str(node.host), int(node.port)) for node in startup)),
        **_credentials(arguments, tls=tls),
    )


def _sentinel(pool: Client, arguments: Mapping[str, Client]) -> RedisTarget:
    if not pool.is_master:
        raise _refused("it reads from replicas, which may lag behind writes")
    asked: list[Client] = pool.sentinel_manager.sentinels
    own: Mapping[str, Client] = asked[0].connection_pool.connection_kwargs
    return RedisTarget(
        topology="sentinel",
        hosts=tuple(_place(sentinel.connection_pool.connection_kwargs) for sentinel in asked),
        database=int(arguments.get("db") or 0),
        service=pool.service_name,
        sentinel_username=own.get("username"),
        sentinel_password=own.get("password"),
        sentinel_tls="SSL" in asked[0].connection_pool.connection_class.__name__,
        **_credentials({**_tls_options(own), **arguments}, tls="SSL" in pool.connection_class.__name__),
    )


def _place(arguments: Mapping[str, Client]) -> tuple[str, int]:
    return str(arguments.get("host") or "localhost"), int(arguments.get("port") or _DEFAULT_PORT)


def _credentials(arguments: Mapping[str, Client], *, tls: bool) -> Options:
    return {
        "tls": tls,
        "username": arguments.get("username"),
        "password": arguments.get("password"),
        "credential_provider": arguments.get("credential_provider"),
        "tls_options": tuple(sorted(_tls_options(arguments).items())),
    }


def _tls_options(arguments: Mapping[str, Client]) -> dict[str, Hashable]:
    return {
        name: tuple(cast("list[Hashable]", value)) if isinstance(value, list) else value
        for name, value in arguments.items()
        # OCSP is off by default, and redis-py's asynchronous connections do not accept its options.
        if name.startswith("ssl_")
        and value is not None
        and not (name.startswith("ssl_validate") and not value)
    }


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"this client cannot be used: {why}; pass the Redis URL instead", parameter="url_or_client"
    )
