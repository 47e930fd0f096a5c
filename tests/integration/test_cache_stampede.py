"""Many processes, one computation: cold, at expiry, and when the one who computes dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.cache import RedisCache
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

# Each process runs so many threads or tasks that ask at the same moment; it prints what they got.
WORKER = """
import asyncio, json, sys, threading, time
import redis
from mks_hardening.cache import RedisCache, cached

url, kind, callers, key = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
cache = RedisCache(url, store_budget=5, signing_keys=["0123456789abcdef"])
counter = redis.Redis.from_url(url)

def value():
    return int(counter.incr("computed"))

@cached(cache=cache, key_prefix=key, ttl=1, stale_while_revalidate=600)
def answer():
    time.sleep(0.2)
    return value()

@cached(cache=cache, key_prefix=key, ttl=1, stale_while_revalidate=600)
async def aanswer():
    await asyncio.sleep(0.2)
    return value()

def start_together():
    counter.incr("ready")
    while int(counter.get("go") or 0) == 0:
        time.sleep(0.002)

got = []
if kind == "threads":
    barrier = threading.Barrier(callers + 1)
    def work():
        barrier.wait()
        got.append(answer())
    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads: thread.start()
    start_together()
    barrier.wait()
    for thread in threads: thread.join()
    for thread in threading.enumerate():
        if thread.name == "mks-cache-refresh": thread.join()
else:
    async def main():
        got.extend(await asyncio.gather(*(aanswer() for _ in range(callers))))
        await asyncio.sleep(0.4)
        await cache.aclose()
    start_together()
    asyncio.run(main())
print(json.dumps(got))
"""


class Crowd:
    """Four processes with many callers each."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.script = folder / "worker.py"
        self.script.write_text(WORKER)

    def ask(self, kind: str, *, processes: int = 4, callers: int = 50) -> list[Any]:
        self.server.command("DEL", "ready", "go")
        arguments = [sys.executable, str(self.script), self.server.url, kind, str(callers), "shared"]
        started = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(processes)]
        wait_until(
            lambda: int(self.server.command("GET", "ready") or 0) == processes,
            timeout=30,
            what="ready workers",
        )
        self.server.command("SET", "go", 1)
        got: list[Any] = []
        for process in started:
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            got += json.loads(output)
        return got

    @property
    def computed(self) -> int:
        return int(self.server.command("GET", "computed") or 0)


@pytest.fixture
def crowd(redis_server: RedisServer, tmp_path: Path) -> Crowd:
    return Crowd(redis_server, tmp_path)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_one_computation_for_four_processes(crowd: Crowd, kind: str) -> None:
    assert crowd.ask(kind) == [1] * 200
    assert crowd.computed == 1
    wait_until(lambda: _is_stale(crowd.server), timeout=10, what="a stale answer")
    assert crowd.ask(kind) == [1] * 200  # nobody waits: all have the old answer
    assert crowd.computed == 2


def _is_stale(server: RedisServer) -> bool:
    with RedisCache(server.url, signing_keys=["0123456789abcdef"], store_budget=5) as cache:
        (name,) = server.command("KEYS", "mks:v:*")
        return not cache.exists(name.decode().removeprefix("mks:v:"))


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[RedisCache]:
    with RedisCache(redis_server.url, store_budget=5) as made:
        yield made


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_holder_that_dies_is_replaced_when_its_lease_ends(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    child = os.fork()
    if child == 0:
        cache.get_or_compute("k", signal.pause)
        os._exit(1)
    wait_until(lambda: redis_server.command("EXISTS", "mks:l:k") == 1, timeout=10, what="a lease")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    redis_server.command("PEXPIRE", "mks:l:k", 100)  # instead of waiting for its thirty seconds
    assert cache.get_or_compute("k", lambda: "mine") == "mine"
    assert cache.get("k") == "mine"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_invalidation_in_another_process_wins_over_a_computation(cache: RedisCache) -> None:
    def compute() -> str:
        child = os.fork()
        if child == 0:
            done = cache.invalidate_tags("t")
            os._exit(0 if done else 1)
        assert os.waitpid(child, 0)[1] == 0
        return "old"

    assert cache.get_or_compute("k", compute, tags=["t"]) == "old"
    assert cache.get("k") is None
