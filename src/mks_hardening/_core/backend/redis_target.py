"""Connection target of a Redis client as a plain value: equal targets are one server and share connections."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, NamedTuple

__all__ = ["RedisTarget", "Topology"]

Topology = Literal["single", "sentinel", "cluster"]


class RedisTarget(NamedTuple):
    """A checked address with its credentials.

    Attributes:
        topology: single server, primary behind sentinels, or cluster.
        tls: whether connections to the servers use TLS.
        hosts: host and port of each server, sentinel or startup node of the cluster.
        path: Unix socket path, or empty.
        username: ACL user.
        password: password of the ACL user.
        database: database number.
        service: name of the primary at the sentinels.
        sentinel_username: ACL user for the sentinels themselves.
        sentinel_password: password for the sentinels.
        sentinel_tls: whether connections to the sentinels use TLS.
        tls_options: ``ssl_…`` options of redis-py, as pairs.
        credential_provider: credential provider of redis-py, taken from a client that was passed in.
    """

    topology: Topology = "single"
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    username: str | None = None
    password: str | None = None
    database: int = 0
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    sentinel_tls: bool = False
    tls_options: tuple[tuple[str, Hashable], ...] = ()
    credential_provider: Hashable = None

    @property
    def address(self) -> str:
        """The address without credentials, for names, logs and errors."""
        return self.path or ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    @property
    def server(self) -> RedisTarget:
        """The target without the database: all databases of a server are up or down together."""
        return self._replace(database=0)

    def __repr__(self) -> str:
        return f"RedisTarget({self.topology}, {self.address}, database={self.database}, tls={self.tls})"
