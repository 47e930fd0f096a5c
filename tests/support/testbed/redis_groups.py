"""Real Sentinel and Cluster set-ups of Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from testbed.polling import free_port, wait_until
from testbed.redis_server import RedisServer


class Sentinel(RedisServer):
    """One sentinel process; it rewrites its own configuration file."""

    _mode = ("--sentinel",)
    _defaults: Mapping[str, str] = MappingProxyType({})

    def _configuration(self, client: Any = None) -> dict[str, str]:
        return {}


class SentinelGroup:
    """One master, one replica and three sentinels that declare a master down after half a second.

    Args:
        directory: where their files go.
        engine: name or path of the program.
    """

    name = "mks"

    def __init__(self, directory: Path, engine: str = "redis-server") -> None:
        self.nodes = [RedisServer(directory / role, engine=engine) for role in ("master", "replica")]
        self.sentinels = [Sentinel(directory / f"sentinel{number}", engine=engine) for number in range(3)]

    def start(self) -> None:
        """Start, and return when every sentinel knows the replica and the other sentinels."""
        master, replica = self.nodes
        master.start()
        replica.start()
        replica.command("REPLICAOF", master.host, master.port)
        for sentinel in self.sentinels:
            sentinel.start()
            sentinel.command("SENTINEL", "DEBUG", "info-period", 200, "publish-period", 200)
            sentinel.command("SENTINEL", "MONITOR", self.name, master.host, master.port, 2)
            sentinel.command("SENTINEL", "SET", self.name, "down-after-milliseconds", 500)
            sentinel.command("SENTINEL", "SET", self.name, "failover-timeout", 2000)
        wait_until(self._complete, what="a complete sentinel group")

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each sentinel."""
        return [(sentinel.host, sentinel.port) for sentinel in self.sentinels]

    @property
    def master(self) -> RedisServer:
        """Return the node that the sentinels name as master."""
        return next(node for node in self.nodes if node.port == self._master_port())

    def fail_over(self, *, timeout: float = 30) -> RedisServer:
        """Kill the master, wait until another node is one and answers as such, and return it."""
        before = self.master
        before.kill()
        wait_until(lambda: self._master_port() != before.port, timeout=timeout, what="a failover")
        after = self.master
        wait_until(lambda: after.command("ROLE")[0] == b"master", timeout=timeout, what="a promoted master")
        return after

    def close(self) -> None:
        """Stop all five."""
        for server in (*self.sentinels, *self.nodes):
            server.close()

    def _master_port(self) -> int:
        return int(self.sentinels[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def _complete(self) -> bool:
        return all(
            len(sentinel.command("SENTINEL", "REPLICAS", self.name)) == 1
            and len(sentinel.command("SENTINEL", "SENTINELS", self.name)) == 2
            for sentinel in self.sentinels
        )


class RedisCluster:
    """Three masters, each with a replica; a node counts as failed after a second.

    Args:
        directory: where their files go.
        engine: name or path of the program.
    """

    def __init__(self, directory: Path, engine: str = "redis-server") -> None:
        self.nodes = [
            RedisServer(directory / f"node{number}", options=self._options(), engine=engine)
            for number in range(6)
        ]

    @staticmethod
    def _options() -> dict[str, str]:
        return {"cluster-enabled": "yes", "cluster-node-timeout": "1000", "cluster-port": str(free_port())}

    @property
    def url(self) -> str:
        """URL of one node, from which a cluster client finds the others."""
        return next(node for node in self.nodes if node.process.running).url

    def start(self) -> None:
        """Start and return once all slots are served and all replicas are in step."""
        for epoch, node in enumerate(self.nodes, start=1):
            node.start()
            node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        masters, replicas = self.nodes[:3], self.nodes[3:]
        for node, (first, last) in zip(masters, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True):
            node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", masters[0].host, masters[0].port, masters[0].bus_port)
        wait_until(lambda: all(self._knows_all(node) for node in self.nodes), what="a cluster of six")
        for node, master in zip(replicas, masters, strict=True):
            node.command("CLUSTER", "REPLICATE", _text(master.command("CLUSTER", "MYID")))
        wait_until(self._healthy, what="a healthy cluster")

    def owner(self, key: str) -> RedisServer:
        """Return the running master of a key."""
        slot = int(self._alive().command("CLUSTER", "KEYSLOT", key))
        for row in self._alive().command("CLUSTER", "SLOTS"):
            if row[0] <= slot <= row[1]:
                return next(node for node in self.nodes if node.port == row[2][1])
        raise LookupError(f"nobody serves slot {slot}")

    def fail_over(self, key: str, *, timeout: float = 30) -> RedisServer:
        """Kill the master of a key, wait until its replica serves the slot, and return that."""
        before = self.owner(key)
        before.kill()
        wait_until(lambda: self._served_by_another(key, before), timeout=timeout, what="a failover")
        return self.owner(key)

    @contextmanager
    def resharding(self, key: str) -> Iterator[RedisServer]:
        """Move the slot of a key to another master, which is yielded; its keys move at the end of the block.

        Within the block, the old master redirects with ``ASK`` for keys that do not exist.
        """
        source = self.owner(key)
        slot = int(source.command("CLUSTER", "KEYSLOT", key))
        target = next(node for node in self.nodes[:3] if node is not source)
        names = {node.port: _text(node.command("CLUSTER", "MYID")) for node in (source, target)}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
        yield target
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *(node for node in self.nodes[:3] if node not in (source, target))):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])

    def close(self) -> None:
        """Stop all six."""
        for node in self.nodes:
            node.close()

    def _alive(self) -> RedisServer:
        return next(node for node in self.nodes if node.process.running)

    def _served_by_another(self, key: str, before: RedisServer) -> bool:
        return self.owner(key) is not before and self._info(self._alive(), "cluster_state") == "ok"

    def _healthy(self) -> bool:
        return all(self._info(node, "cluster_state") == "ok" for node in self.nodes) and all(
            _text(node.command("ROLE")[3]) == "connected"
            for node in self.nodes[3:]
            if len(node.command("ROLE")) > 3
        )

    def _knows_all(self, node: RedisServer) -> bool:
        return self._info(node, "cluster_known_nodes") == "6" and self._info(node, "cluster_state") == "ok"

    @staticmethod
    def _info(node: RedisServer, name: str) -> str:
        answer = node.command("CLUSTER", "INFO")
        return (
            str(answer[name])
            if isinstance(answer, dict)
            else dict(line.split(":", 1) for line in _text(answer).split() if ":" in line)[name]
        )


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
