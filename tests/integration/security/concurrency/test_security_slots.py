"""Concurrency limits on a real Redis: exact among processes, leases that end with their holders, outages."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from mks_hardening.security import ConcurrencyLimiter
from testbed.polling import wait_until
from together import run_together

pytestmark = pytest.mark.redis


@pytest.fixture
def make(redis_url: str) -> Iterator[Any]:
    opened: list[ConcurrencyLimiter] = []

    def make_limiter(quota: int = 2, **options: Any) -> ConcurrencyLimiter:
        opened.append(
            ConcurrencyLimiter({"g": quota}, **{"storage": redis_url, "store_budget": 5, **options})
        )
        return opened[-1]

    yield make_limiter
    for one in opened:
        one.close()


def test_two_limiters_share_their_slots(make: Any, redis_server: Any) -> None:
    one, other = make(), make()
    with one.hold("g", "a}b") as first, other.hold("g", "a}b") as second:
        assert (first.held, second.held) == (1, 2)
        refused = one.acquire("g", "a}b")
        assert not refused
        assert 0 < (refused.retry_after or 0) <= 10
        assert one.held("g", "a}b") == other.held("g", "a}b") == 2
        with redis.Redis(port=redis_server.port) as admin:
            keys = admin.keys("*slots*")
            assert len(keys) == 3
            assert all(admin.pttl(key) > 0 for key in keys)
    assert one.held("g", "a}b") == 0


def test_slots_of_the_dead_come_back_and_those_of_the_living_stay(make: Any, redis_url: str) -> None:
    limiter = make(quota=2, lease=0.8)
    program = (
        "import sys, time; from mks_hardening.security import ConcurrencyLimiter\n"
        "one = ConcurrencyLimiter({'g': 2}, storage=sys.argv[1], store_budget=5, lease=0.8)\n"
        "slot = one.acquire('g'); print(bool(slot), flush=True); time.sleep(60)"
    )
    mine = limiter.acquire("g")
    child = subprocess.Popen([sys.executable, "-c", program, redis_url], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        refused_for_longer_than_a_lease = threading.Event().wait(1.2)
        assert not refused_for_longer_than_a_lease
        assert not limiter.acquire("g")
    finally:
        child.kill()
        child.communicate(timeout=10)
    assert limiter.acquire("g", wait=20)
    assert mine
    assert not mine.lost


def test_a_holder_that_stood_still_is_told_and_counts_again(make: Any) -> None:
    limiter = make(quota=1, lease=600)
    slot = limiter.acquire("g")
    limiter._shared._client.call("DEL", "mks:slots:{g:}")
    other = make(quota=1, lease=600).acquire("g")
    assert other
    assert not slot.renew()
    assert slot.lost
    assert limiter.held("g") == 2
    other.release()
    assert not limiter.acquire("g")
    assert not slot.renew()  # it was lost once


HAMMER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from mks_hardening.security import ConcurrencyLimiter
import redis

limiter = ConcurrencyLimiter({"g": 3}, storage=sys.argv[1], store_budget=5, on_unavailable="closed")
admin = redis.Redis.from_url(sys.argv[1])
limiter.held("g")
print("ready", flush=True)
sys.stdin.readline()

def work(_):
    with limiter.hold("g", wait=50):
        now = admin.incr("now")
        admin.decr("now")
    return now

with ThreadPoolExecutor(4) as pool:
    print(max(pool.map(work, range(25))), flush=True)
"""


def test_processes_never_hold_more_than_there_are(redis_url: str) -> None:
    most = [int(number) for (number,) in run_together(HAMMER, redis_url, processes=3)]
    assert 1 <= max(most) <= 3


def test_a_lost_reply_takes_one_slot(fault_proxy: Any, redis_url: str, make: Any) -> None:
    limiter = make(quota=2, storage=fault_proxy.through(redis_url), on_unavailable="closed")
    limiter.held("g")
    fault_proxy.lose_reply(matching=b"EVALSHA")
    assert limiter.acquire("g")
    assert limiter.held("g") == 1


def test_a_server_that_dies_and_comes_back_empty(make_redis: Any, make: Any) -> None:
    server = make_redis()
    one = make(quota=2, storage=server.url, store_budget=0.5, lease=1)
    other = make(quota=2, storage=server.url, store_budget=0.5, lease=1)

    def they_know_each_other() -> bool:
        for limiter in (one, other):
            limiter.acquire("g").release()
        return bool(one._members.workers == other._members.workers == 2)

    wait_until(they_know_each_other)
    slots = [one.acquire("g")]
    server.kill()
    assert not one.acquire("g")  # its share
    slots.append(other.acquire("g"))
    assert all(slots)
    server.start()
    wait_until(lambda: one.held("g") == 2 and one._shared._client.ping())
    assert not one.acquire("g")
    for slot in slots:
        slot.release()
    assert one.acquire("g", wait=20)


def test_coroutines_share_with_threads(make: Any) -> None:
    limiter = make(quota=1)

    async def play() -> None:
        async with limiter.hold("g"):
            assert not limiter.acquire("g")
            assert not await limiter.aacquire("g")
            assert await limiter.aheld("g") == 1
        with limiter.hold("g"):
            assert not await limiter.aacquire("g")
        await limiter.aclose()

    asyncio.run(play())


def test_slots_in_a_cluster(redis_cluster: Any) -> None:
    with ConcurrencyLimiter({"g": 1, "h": 1}, storage=redis_cluster.url, store_budget=5) as limiter:
        for key in ("a", "b", "c", "}x{"):
            with limiter.hold("g", key), limiter.hold("h", key):
                assert not limiter.acquire("g", key)
            assert limiter.acquire("g", key)
