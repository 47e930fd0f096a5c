"""The pace of outgoing calls over processes: on a real Redis, and while it is away."""

import asyncio
from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError, PaceTimeoutError
from mks_hardening.security import RateLimiter
from testbed.polling import wait_until
from together import run_together
from turns import turn

pytestmark = pytest.mark.redis


def test_limiters_share_one_schedule(redis_url: str) -> None:
    groups = {"g": "10 per second"}
    with (
        RateLimiter(groups, storage=redis_url, store_budget=5) as one,
        RateLimiter(groups, storage=redis_url, store_budget=5) as other,
    ):
        waits = [turn(limiter, "g", "a}b{") for _ in range(10) for limiter in (one, other)]
        assert waits == sorted(waits)
        assert 1.5 < waits[-1] <= 1.9
        with pytest.raises(PaceTimeoutError):
            turn(one, "g", "a}b{", timeout=0.5)
        assert turn(one, "g", "another") == 0
        assert [turn(one, "g", "burst", burst=3) for _ in range(3)] == [0, 0, 0]
        assert turn(one, "g", "burst", burst=3, cost=5) > 0
        assert turn(other, "g", "burst", burst=3) > 0.4
        keys = list(one._storage.server._client.call("KEYS", "*:pace"))  # type: ignore[union-attr]
        assert all(one._storage.server._client.call("PTTL", key) > 0 for key in keys)  # type: ignore[union-attr]


PACED = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from mks_hardening.security import RateLimiter

limiter = RateLimiter({"g": "100 per second"}, storage=sys.argv[1], store_budget=5)
limiter.test("g", "k")
print("ready", flush=True)
sys.stdin.readline()

def call(_):
    limiter.pace("g").wait()
    return time.time()

with ThreadPoolExecutor(4) as pool:
    print(*pool.map(call, range(20)), flush=True)
"""


def test_processes_keep_one_pace_together(redis_url: str) -> None:
    calls = sorted(float(at) for process in run_together(PACED, redis_url, processes=3) for at in process)
    assert len(calls) == 60
    assert calls[-1] - calls[0] > 0.55  # 59 gaps of 10 ms, less what the last sleepers were late


def test_a_cancelled_call_gives_its_turn_up(redis_url: str) -> None:
    with RateLimiter({"g": "1 per minute"}, storage=redis_url, store_budget=5) as limiter:

        async def play() -> None:
            assert await limiter.pace("g") == 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await limiter.pace("g", timeout=1000)
            await limiter.aclose()

        asyncio.run(play())
        with RateLimiter({"g": "1 per minute"}, storage=redis_url, store_budget=5) as other:
            assert 50 < turn(other, "g", timeout=1000) <= 60


@pytest.mark.parametrize("empty", [True, False])
def test_the_pace_goes_on_while_the_server_is_away(make_redis: Any, empty: bool) -> None:
    server = make_redis()
    with RateLimiter({"g": "1 per second"}, storage=server.url, store_budget=0.5) as limiter:
        waits = [turn(limiter, "g") for _ in range(10)]
        if empty:
            server.kill()
        else:
            server.pause()
        waits += [turn(limiter, "g") for _ in range(10)]
        if empty:
            server.start()
        else:
            server.resume()
        wait_until(limiter._storage.server._client.ping)  # type: ignore[union-attr]  # it has one
        last = turn(limiter, "g")
        assert waits[0] == 0
        assert 5 < waits[9] <= 9
        assert waits[10] > 5
        assert 10 < last <= 20


def test_without_a_server_a_closed_pace_says_so(redis_server: Any) -> None:
    with RateLimiter({"g": "10 per second"}, storage=redis_server.url, on_unavailable="closed") as limiter:
        redis_server.pause()
        try:
            with pytest.raises(BackendUnavailableError):
                limiter.pace("g").wait()
        finally:
            redis_server.resume()
