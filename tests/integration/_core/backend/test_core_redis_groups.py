"""Sentinel and Cluster: what callers see while a primary dies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

import pytest
import redis
import redis.asyncio

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock
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
    return "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in cluster.nodes)


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


def test_a_loop_and_a_child_find_a_cluster_whose_named_node_is_gone(redis_cluster: RedisCluster) -> None:
    named = redis_cluster.nodes[0]
    url = named.url.replace("redis://", "redis+cluster://").removesuffix("/0")
    key = next(key for key in map(str, range(1000)) if redis_cluster.owner(key) is named)
    with RedisClient(url, store_budget=1) as client:
        assert client.ping()
        redis_cluster.fail_over(key)

        def written() -> bool:
            try:
                return bool(client.call("SET", key, "1", idempotent=True))
            except BackendUnavailableError:
                return False

        wait_until(written)

        async def read_later() -> object:
            other = RedisClient(client, store_budget=1)
            try:
                return await other.acall("GET", key, idempotent=True)
            finally:
                await other.aclose()

        assert asyncio.run(read_later()) == b"1"
        endpoint = client._lease.endpoint
        endpoint.reset_after_fork()  # what a forked child does
        assert client.call("GET", key, idempotent=True) == b"1"
        for of_the_parent in endpoint._of_the_parent[0].values():
            of_the_parent.close()


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
    with RedisClient(url, store_budget=5) as client, pytest.raises(BackendUnavailableError) as caught:
        client.call("GET", "a", idempotent=True)
    assert caught.value.reason == "refused"


def keys_by_owner(cluster: RedisCluster) -> dict[int, str]:
    """A key for each primary, by its port."""
    found: dict[int, str] = {}
    for number in range(100):
        found.setdefault(cluster.owner(f"key:{number}").port, f"key:{number}")
        if len(found) == 3:
            break
    return found


def kill_pair(cluster: RedisCluster, key: str) -> list[RedisServer]:
    """Kill the primary of a key and its replica, so that nobody can take over."""
    primary = cluster.owner(key)
    replicas = [
        node
        for node in cluster.nodes[3:]
        if int(node.command("ROLE")[2]) == primary.port  # its primary's port
    ]
    for node in (primary, *replicas):
        node.kill()
    return [primary, *replicas]


def outcome(call: Callable[[], Any]) -> str:
    try:
        return str(call().decode())
    except BackendUnavailableError as error:
        return error.reason


def test_a_half_covered_cluster_serves_the_other_half(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    for node in redis_cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    lost_key, *kept = keys_by_owner(redis_cluster).values()
    with RedisClient(cluster_url(redis_cluster), store_budget=0.5) as client:
        for key in (lost_key, *kept):
            client.call("SET", key, "1", idempotent=True)
        dead = kill_pair(redis_cluster, lost_key)
        with caplog.at_level("WARNING", logger="mks_hardening.breaker"):
            for _ in range(30):
                outcomes = [outcome(lambda key=key: client.call("GET", key, idempotent=True)) for key in kept]
                assert outcomes == ["1", "1"]
                assert outcome(lambda: client.call("GET", lost_key, idempotent=True)) in ("refused", "open")
                assert outcome(lambda: client.pipeline([("GET", lost_key), ("GET", kept[0])])[1]) != "1"

        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert f":{dead[0].port} " in caplog.records[0].getMessage()


def test_a_half_covered_cluster_serves_the_other_half_of_the_loop_too(redis_cluster: RedisCluster) -> None:
    for node in redis_cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    owners = keys_by_owner(redis_cluster)
    lost_key = owners.pop(redis_cluster.nodes[0].port)
    kept = list(owners.values())

    async def main() -> None:
        client = RedisClient(cluster_url(redis_cluster), store_budget=0.5)
        for key in (lost_key, *kept):
            await client.acall("SET", key, "1", idempotent=True)
        await asyncio.to_thread(kill_pair, redis_cluster, lost_key)
        for _ in range(10):
            for key in kept:
                assert await client.acall("GET", key, idempotent=True) == b"1"
            with pytest.raises(BackendUnavailableError):
                await client.acall("GET", lost_key, idempotent=True)
        await client.aclose()
        # One that starts now, with the primary of the first slots away.
        client = RedisClient(cluster_url(redis_cluster), store_budget=0.5)
        for key in kept:
            assert await client.acall("GET", key, idempotent=True) == b"1"
        await client.aclose()

    asyncio.run(main())


def test_a_cluster_that_is_down_is_one_outage(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    keys = list(keys_by_owner(redis_cluster).values())
    with RedisClient(cluster_url(redis_cluster), store_budget=0.5) as client:
        for key in keys:
            client.call("SET", key, "1", idempotent=True)
        with caplog.at_level("WARNING", logger="mks_hardening.breaker"):
            for node in redis_cluster.nodes:
                node.kill()
            for key in keys * 4:
                assert outcome(lambda key=key: client.call("GET", key, idempotent=True)) in (
                    "refused",
                    "open",
                )
        assert [record.levelname for record in caplog.records] == ["ERROR"]


async def uncovered_on_a_loop(client: RedisClient, lost: str, kept: str) -> None:
    with RedisClient(client, store_budget=0.1) as quick:  # no time to sleep for 0.25 s
        for _ in range(4):
            with pytest.raises(BackendUnavailableError, match="uncovered"):
                await quick.acall("GET", lost, idempotent=True)
            assert await quick.acall("GET", kept, idempotent=True) is None
        await quick.aclose()


def test_an_unassigned_slot_is_an_answer_about_one_key(redis_cluster: RedisCluster) -> None:
    for node in redis_cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    lost, kept, _ = keys_by_owner(redis_cluster).values()
    slot = redis_cluster.owner(lost).command("CLUSTER", "KEYSLOT", lost)
    with RedisClient(cluster_url(redis_cluster), store_budget=0.5) as client:
        assert client.call("GET", kept, idempotent=True) is None
        for node in redis_cluster.nodes:
            node.command("CLUSTER", "DELSLOTS", slot)
        for _ in range(5):
            assert outcome(lambda: client.call("GET", lost, idempotent=True)) == "uncovered"
            assert client.call("GET", kept, idempotent=True) is None
        # One that learns of the cluster now has a hole in its map, and must not keep it.
        clock = FrozenClock()
        with RedisClient(cluster_url(redis_cluster), store_budget=0.5, clock=clock) as late:
            assert outcome(lambda: late.call("GET", lost, idempotent=True)) == "uncovered"
            asyncio.run(uncovered_on_a_loop(late, lost, kept))
            redis_cluster.nodes[0].command("CLUSTER", "ADDSLOTS", slot)
            wait_until(lambda: outcome(lambda: late.call("SET", lost, b"1") or b"") == "OK", timeout=10)
            assert late.call("GET", lost) == b"1"


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
def test_a_handed_in_cluster_client_is_built_anew(kind: str, redis_cluster: RedisCluster) -> None:
    node = redis_cluster.nodes[0]

    async def make() -> Any:
        handed_in = redis.asyncio.RedisCluster(host=node.host, port=node.port)
        client = RedisClient(handed_in, store_budget=1)
        assert await client.acall("SET", "a", "1") == b"OK"
        await handed_in.aclose()
        await client.aclose()

    if kind == "asyncio":
        asyncio.run(make())
        return
    with (
        redis.RedisCluster(host=node.host, port=node.port) as handed_in,
        RedisClient(handed_in, store_budget=1) as client,
    ):
        assert client.call("SET", "a", "1") == b"OK"
        assert handed_in.get("a") == b"1"
