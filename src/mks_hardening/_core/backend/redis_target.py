"""What a Redis client connects to, as a plain value: equal targets are one server and share what leads to it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, NamedTuple

__all__ = ["RedisTarget", "Topology"]

Topology = Literal["single", "sentinel", "cluster"]


class RedisTarget(NamedTuple):
    """A checked place with the credentials for it.

    Attributes:
        topology: one server, a primary that sentinels name, or a cluster.
        tls: whether everything, the words with sentinels too, is encrypted.
        hosts: host and port of each server, sentinel or first node of the cluster.
        path: socket file, or empty.
        username: ACL user.
        password: its password.
        database: number of the database.
        service: what the sentinels call the primary.
        sentinel_username: ACL user of the sentinels themselves.
        sentinel_password: its password.
        sentinel_tls: whether the sentinels speak TLS.
        tls_options: what redis-py calls ``ssl_…``, as pairs.
        credential_provider: redis-py's source of credentials that change; from a client that was handed in.
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
        """Where it points, without credentials: for names, logs and errors."""
        return self.path or ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    @property
    def server(self) -> RedisTarget:
        """The same without the database: all databases of a server are up or away together."""
        return self._replace(database=0)

    def __repr__(self) -> str:
        return f"RedisTarget({self.topology}, {self.address}, database={self.database}, tls={self.tls})"
