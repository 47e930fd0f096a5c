"""Several processes whose shard of a Redis Cluster loses its data still let pass about what the limit allows."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from limit_workers import LIMIT, SLACK, WORKERS, LimitWorkers, play
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster

pytestmark = [pytest.mark.slow, pytest.mark.redis]

KEY = "mks:limit:{g:k}:hits"


@pytest.fixture
def workers(redis_cluster: RedisCluster) -> Iterator[Callable[..., LimitWorkers]]:
    """Start processes; what they hit to see the server is on the shard of the key that is counted."""
    opened: list[LimitWorkers] = []

    def make(*arguments: Any) -> LimitWorkers:
        url = redis_cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        opened.append(LimitWorkers(url, *arguments))
        shard = redis_cluster.owner(KEY)
        names = (name for name in map(str, count()) if redis_cluster.owner(f"{{g:{name}}}") is shard)
        opened[-1].own_keys = [next(names) for _ in range(WORKERS)]
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def flush(cluster: RedisCluster) -> None:
    cluster.owner(KEY).command("FLUSHALL")


def flush_all(cluster: RedisCluster) -> None:
    for node in cluster.nodes[:3]:
        node.command("FLUSHALL")


def restart(cluster: RedisCluster) -> None:
    node = cluster.owner(KEY)
    node.kill()
    node.start()


def fail_over(cluster: RedisCluster) -> None:
    cluster.fail_over(KEY)


def fail_over_to_an_empty_replica(cluster: RedisCluster) -> None:
    """Replication is asynchronous; here the replica has nothing at all."""
    replica = cluster.nodes[3 + cluster.nodes.index(cluster.owner(KEY))]
    replica.command("CONFIG", "SET", "replica-read-only", "no")
    replica.command("FLUSHALL")
    cluster.fail_over(KEY)


LOSSES: dict[str, tuple[tuple[int, ...], Callable[[RedisCluster], None]]] = {
    # After how many hits what happens, while everybody goes on as if nothing had.
    "flush": ((50,), flush),
    "flush all shards": ((50,), flush_all),
    "flush four times": ((20, 20, 20, 20), flush),
    "flush four times when all is used": ((100, 40, 40, 40), flush),
    "quick restart": ((50,), restart),
    "quick restart twice": ((40, 40), restart),
    "restart with an old snapshot": ((30,), restart),
    "fail over": ((50,), fail_over),
    "fail over to an empty replica": ((50,), fail_over_to_an_empty_replica),
}


@pytest.mark.parametrize("strategy", ["exact-window", "sliding-window"])
@pytest.mark.parametrize("at_once", [False, True], ids=["in turns", "at once"])
@pytest.mark.parametrize("how", LOSSES)
def test_a_loss_of_a_shard_is_known_at_the_next_hit(
    redis_cluster: RedisCluster, workers: Callable[..., LimitWorkers], how: str, at_once: bool, strategy: str
) -> None:
    one = workers(strategy, 1)  # a busy machine is no outage
    wait_until(one.all_see_the_server, timeout=20)
    hits = one.rush if at_once else one.hits
    steps, happen = LOSSES[how]
    if how == "restart with an old snapshot":
        hits(20)
        redis_cluster.owner(KEY).command("SAVE")
    for step in steps:
        hits(step - WORKERS)
        one.hits(WORKERS)  # under traffic all know about the same
        if "flush" not in how:
            wait_until(one.all_are_quiet, timeout=20)  # for a worker that notices a restart it is an outage
        happen(redis_cluster)
    hits(2 * LIMIT)
    wait_until(one.all_see_the_server, timeout=30)
    hits(2 * LIMIT)
    assert LIMIT - SLACK <= one.passed <= LIMIT + SLACK


@pytest.mark.parametrize("strategy", ["exact-window", "sliding-window"])
@pytest.mark.parametrize("how", ["kill", "kill, restart empty", "stop, continue"])
def test_four_workers_pass_little_more_than_the_limit_of_a_shard(
    redis_cluster: RedisCluster, workers: Callable[..., LimitWorkers], how: str, strategy: str
) -> None:
    shard = redis_cluster.owner(KEY)
    away, back = {
        "kill": (shard.kill, None),
        "kill, restart empty": (shard.kill, shard.start),
        "stop, continue": (shard.pause, shard.resume),
    }[how]
    passed = play(workers(strategy), away=away, back=back)
    assert LIMIT - SLACK <= passed <= LIMIT + SLACK
