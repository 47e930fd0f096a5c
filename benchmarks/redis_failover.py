"""A failover of Redis as callers see it: Sentinel 1+1+3 and Cluster 3+3 on loopback, compared with redis-py.

    python benchmarks/redis_failover.py [sentinel|cluster]

Each client writes continuously; the primary is killed once. Output: seconds from the end of the failover to the
first successful read, the longest call, failed calls, and acknowledged writes that were lost.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from mks_hardening._core.backend.redis_client import RedisClient
from testbed.redis_groups import RedisCluster, SentinelGroup

KEY = "{a}numbers"


class Writer:
    """Adds numbers to a set until stopped."""

    def __init__(self, name: str, add: Callable[[int], Any], read: Callable[[], Any]) -> None:
        self.name, self._add, self._read = name, add, read
        self.acknowledged: set[int] = set()
        self.failed = 0
        self.longest = 0.0
        self.back_at = 0.0
        self._finished_at: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def failover_finished(self) -> None:
        """Start measuring the recovery."""
        self._finished_at = time.monotonic()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            number += 1
            start = time.monotonic()
            try:
                self._add(number)
            except Exception:  # noqa: BLE001 - whatever the client raises is a failed call
                self.failed += 1
            else:
                self.acknowledged.add(number)
            self.longest = max(self.longest, time.monotonic() - start)
            self._look()

    def _look(self) -> None:
        if self._finished_at is None or self.back_at:
            return
        try:
            self._read()
        except Exception:  # noqa: BLE001 - not back yet
            return
        self.back_at = time.monotonic() - self._finished_at

    def show(self, stored: set[int]) -> None:
        """Print the results; ``stored`` is the content of the server."""
        lost = len(self.acknowledged - stored)
        print(
            f"  {self.name:10} reads back after {self.back_at:5.2f} s   longest call {self.longest:6.3f} s   "
            f"failed {self.failed:4d}   acknowledged {len(self.acknowledged):5d}   lost {lost}"
        )


def measure(title: str, group: Any, ours: RedisClient, bare: Any) -> None:
    writers = [
        Writer(
            "ours",
            lambda number: ours.call("SADD", KEY, number, idempotent=True),
            lambda: ours.call("SCARD", KEY, idempotent=True),
        ),
        Writer(
            "redis-py", lambda number: bare.sadd(KEY + ":bare", number), lambda: bare.scard(KEY + ":bare")
        ),
    ]
    for writer in writers:
        writer.start()
    time.sleep(1)
    group.fail_over(KEY) if isinstance(group, RedisCluster) else group.fail_over()
    for writer in writers:
        writer.failover_finished()
    time.sleep(6)
    for writer in writers:
        writer.stop()
    print(f"\n{title}")
    writers[0].show({int(member) for member in ours.call("SMEMBERS", KEY, idempotent=True)})
    writers[1].show({int(member) for member in bare.smembers(KEY + ":bare")})


def sentinel(folder: Path) -> None:
    from redis.sentinel import Sentinel

    group = SentinelGroup(folder)
    try:
        group.start()
        hosts = ",".join(f"{host}:{port}" for host, port in group.addresses)
        ours = RedisClient(f"redis+sentinel://{hosts}/{group.name}/0", store_budget=0.25)
        measure(
            "Sentinel 1+1+3, down after 0.5 s", group, ours, Sentinel(group.addresses).master_for(group.name)
        )
    finally:
        group.close()


def cluster(folder: Path) -> None:
    from redis.cluster import RedisCluster as BareCluster

    group = RedisCluster(folder)
    try:
        group.start()
        address = group.url.removeprefix("redis://").removesuffix("/0")
        host, port = address.split(":")
        ours = RedisClient(f"redis+cluster://{address}", store_budget=0.25)
        measure("Cluster 3+3, node time-out 1 s", group, ours, BareCluster(host=host, port=int(port)))
    finally:
        group.close()


def main() -> None:
    wanted = sys.argv[1:] or ["sentinel", "cluster"]
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            {"sentinel": sentinel, "cluster": cluster}[name](Path(folder))


if __name__ == "__main__":
    main()
