"""Sentinel and Cluster: what callers see while a primary dies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

import pytest

from mks_hardening._core.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster, SentinelGroup
from testbed.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.slow]


class Writer:
    """Writes numbers one after another, remembers which were acknowledged and how long a call took at most."""

    def __init__(self, client: RedisClient, key: str) -> None:
        self.client = client
        self.key = key
        self.acknowledged: list[int] = []
        self.reasons: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.005):
            number += 1
            try:
                self.client.call("SADD", self.key, number, idempotent=True)
            except BackendUnavailableError as error:
                self.reasons.add(error.reason)
            else:
                self.acknowledged.append(number)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: len(self.acknowledged) >= 20)
        return self

    def __exit__(self, *_: object) -> None:
        count = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > count, timeout=5, what="writes after the failover")
        self._stop.set()
        self._thread.join()


def survives(client: RedisClient, key: str, fail_over: Callable[[], RedisServer]) -> None:
    assert client.ping()
    with Writer(client, key) as writer:
        fail_over()
        wait_until(lambda: _reads(client, key), timeout=1.5, what="reads after the failover")
    stored = {int(member) for member in client.call("SMEMBERS", key, idempotent=True)}
    lost = set(writer.acknowledged) - stored
    assert lost == set()


def _reads(client: RedisClient, key: str) -> bool:
    try:
        client.call("SCARD", key, idempotent=True)
    except BackendUnavailableError:
        return False
    return True


def sentinel_url(group: SentinelGroup) -> str:
    hosts = ",".join(f"{host}:{port}" for host, port in group.addresses)
    return f"redis+sentinel://{hosts}/{group.name}/0"


def cluster_url(cluster: RedisCluster) -> str:
    return cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")


def test_sentinel_failover(redis_sentinels: SentinelGroup) -> None:
    with RedisClient(sentinel_url(redis_sentinels), store_budget=0.25) as client:
        survives(client, "numbers", redis_sentinels.fail_over)


def test_sentinel_one_time_operation(redis_sentinels: SentinelGroup) -> None:
    with RedisClient(sentinel_url(redis_sentinels), store_budget=0.25) as client:
        script = client.script("return redis.call('INCR', KEYS[1])")
        assert [script.run(["n"], [], token="t") for _ in range(2)] == [1, 1]


def test_cluster_failover(redis_cluster: RedisCluster) -> None:
    with RedisClient(cluster_url(redis_cluster), store_budget=0.25) as client:
        survives(client, "{a}numbers", lambda: redis_cluster.fail_over("{a}numbers"))


def test_cluster_scripts_and_pipelines(redis_cluster: RedisCluster) -> None:
    with RedisClient(cluster_url(redis_cluster), store_budget=1) as client:
        assert client.pipeline([("SET", "a", "1"), ("SET", "b", "2"), ("GET", "a")])[-1] == b"1"
        script = client.script("return redis.call('INCR', KEYS[1])")
        for key in ("n", "user:{7}:n"):
            assert [script.run([key], [], token="t") for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_asyncio(kind: str, request: pytest.FixtureRequest) -> None:
    group: Any = request.getfixturevalue("redis_sentinels" if kind == "sentinel" else "redis_cluster")
    url = sentinel_url(group) if kind == "sentinel" else cluster_url(group)

    async def main() -> None:
        client = RedisClient(url, store_budget=1)
        await client.acall("SET", "a", "1", idempotent=True)
        assert await client.acall("GET", "a", idempotent=True) == b"1"
        await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_absent_servers_are_the_same_typed_error(kind: str) -> None:
    url = "redis+sentinel://127.0.0.1:1/mks/0" if kind == "sentinel" else "redis+cluster://127.0.0.1:1"
    with RedisClient(url) as client, pytest.raises(BackendUnavailableError) as caught:
        client.call("GET", "a", idempotent=True)
    assert caught.value.reason == "refused"
