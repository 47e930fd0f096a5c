"""On a busy event loop the server's time counts, and not the loop's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.resilience.budget import request_budget
from mks_hardening._core.resilience.loop_time import LoopAwareTimeout, LoopTime, loop_time
from mks_hardening.exceptions import BackendUnavailableError
from testbed.fault_proxy import FaultProxy
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis


def compute(length: float) -> None:
    time.sleep(length)


async def stalls(length: float, *, until: asyncio.Event) -> None:
    """Other work on the loop: one stall after another, with one turn of the loop between them."""
    while not until.is_set():
        compute(length)
        await asyncio.sleep(0)


async def beside(length: float, work: Callable[[], Awaitable[Any]]) -> None:
    done = asyncio.Event()
    busy = asyncio.create_task(stalls(length, until=done))
    try:
        await work()
    finally:
        done.set()
        await busy


@pytest.mark.parametrize(("length", "calls"), [(0.25, 5), (0.03, 12), (0.004, 50)])
def test_a_busy_loop_does_not_open_the_breaker(length: float, calls: int, redis_server: RedisServer) -> None:
    async def main() -> None:
        client = RedisClient(redis_server.url)
        other = RedisClient(client, name="beside")

        async def work() -> None:
            for number in range(calls):
                assert await client.acall("SET", "a", number, idempotent=True) == b"OK"
            assert len(await asyncio.gather(*(other.acall("GET", "a") for _ in range(8)))) == 8

        await beside(length, work)
        assert client._guard.breaker.phase == "closed"
        await client.aclose()
        await other.aclose()

    asyncio.run(main())


def test_a_stopped_server_is_still_found_out_beside_a_busy_loop(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = RedisClient(redis_server.url)
        await client.acall("PING")
        redis_server.pause()

        async def work() -> None:
            reasons = []
            for _ in range(4):
                with pytest.raises(BackendUnavailableError) as caught:
                    await client.acall("GET", "a")
                reasons.append(caught.value.reason)
            assert reasons == ["timeout"] * 3 + ["open"]

        await beside(0.004, work)
        redis_server.resume()
        await client.aclose()

    asyncio.run(main())


def test_calls_side_by_side_are_charged_once(redis_server: RedisServer, fault_proxy: FaultProxy) -> None:
    async def main() -> None:
        client = RedisClient(fault_proxy.through(redis_server.url), store_budget=5)
        await asyncio.gather(*(client.acall("PING") for _ in range(8)))
        fault_proxy.latency = 0.02
        with request_budget(5.0) as budget:
            began = time.monotonic()
            await asyncio.gather(*(client.acall("GET", "a") for _ in range(8)))
            passed = time.monotonic() - began
            # Eight times the latency would be charged eight times; what the loop did elsewhere is taken off.
            assert 0 < 5.0 - budget.remaining <= passed
        await client.aclose()

    asyncio.run(main())


def test_what_the_loop_did_elsewhere_is_not_charged(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = RedisClient(redis_server.url)
        await client.acall("PING")
        with request_budget(0.1):
            for _ in range(5):
                task = asyncio.ensure_future(client.acall("GET", "a"))
                await asyncio.sleep(0)
                compute(0.05)
                assert await task is None
        await client.aclose()

    asyncio.run(main())


def test_a_deadline_without_stalls_is_a_plain_time_out() -> None:
    async def main() -> None:
        counter = loop_time()
        assert counter is loop_time()
        counter.enter(1.0)
        with pytest.raises(TimeoutError):
            async with LoopAwareTimeout(counter, 0.02):
                await asyncio.Event().wait()
        async with LoopAwareTimeout(counter, 30):
            pass
        task = asyncio.ensure_future(waiting(counter))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counter.leave()

    asyncio.run(main())


async def waiting(counter: LoopTime) -> None:
    async with LoopAwareTimeout(counter, 30):
        await asyncio.Event().wait()
