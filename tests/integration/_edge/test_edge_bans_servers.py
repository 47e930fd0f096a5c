"""Bans on a Redis Cluster, with a client of the application, after a fork, and under a busy event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening.testing import call_asgi
from mks_hardening.wsgi import BanList, BanRule
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster
from testbed.redis_server import RedisServer

ATTACKER, OTHER = "198.51.100.7", "198.51.100.8"
RULES = [BanRule("sweep", strikes=4, when={404})]


def soon(condition: Callable[[], bool], *, timeout: float = 10) -> None:
    wait_until(condition, timeout=timeout, what="the exchange with Redis")


def offend(bans: BanList, client: str = ATTACKER, times: int = 4) -> None:
    for _ in range(times):
        bans.observe_response(client, "/", 404)


@pytest.mark.slow
@pytest.mark.redis
def test_on_a_cluster_and_through_the_loss_of_its_primary(redis_cluster: RedisCluster) -> None:
    url = redis_cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")
    with BanList(RULES, store=url, store_budget=5) as one, BanList(RULES, store=url, store_budget=5) as two:
        offend(one, times=2)
        offend(two, times=2)
        soon(lambda: one.is_banned(ATTACKER) and two.is_banned(ATTACKER))
        redis_cluster.fail_over("{mks:bans}:active")
        assert one.is_banned(ATTACKER)
        one.ban(OTHER, 600)
        soon(lambda: two.is_banned(OTHER) and two.is_banned(ATTACKER), timeout=60)
        soon(lambda: {ban.client for ban in two.bans()} == {ATTACKER, OTHER}, timeout=60)
        assert one.lift(ATTACKER)
        soon(lambda: not two.is_banned(ATTACKER))


@pytest.mark.redis
@pytest.mark.parametrize("decoded", [False, True])
def test_a_client_of_the_application_stays_its_own(redis_server: RedisServer, decoded: bool) -> None:
    import redis

    with redis.Redis(host=redis_server.host, port=redis_server.port, decode_responses=decoded) as client:
        with BanList(RULES, store=client) as bans, BanList(RULES, store=redis_server.url) as other:
            offend(bans)
            soon(lambda: other.is_banned(ATTACKER))
            assert [ban.client for ban in bans.bans()] == [ATTACKER]
        assert client.ping()


@pytest.mark.redis
def test_a_forked_child_takes_part(redis_url: str) -> None:
    """gunicorn with ``preload_app``: the list is made in the parent, and each worker has a thread of its own."""
    with BanList(RULES, store=redis_url) as bans:
        offend(bans, OTHER, times=2)
        soon(lambda: not bans._waiting)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                offend(bans, OTHER, times=2)  # the parent has counted the first half
                offend(bans)
                soon(lambda: bans.is_banned(ATTACKER) and bans.is_banned(OTHER))
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(ended) == 0
        soon(lambda: bans.is_banned(ATTACKER) and bans.is_banned(OTHER))


@pytest.mark.redis
def test_a_busy_loop_neither_waits_nor_loses_offences(redis_url: str, redis_server: RedisServer) -> None:
    from mks_hardening.asgi import ClientRulesMiddleware

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    rule = BanRule("sweep", strikes=500, within=600, when={404})
    with BanList([rule], store=redis_url) as bans, BanList([rule], store=redis_url) as other:
        app = ClientRulesMiddleware(application, bans=bans)

        async def request(number: int) -> None:
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request"}

            async def send(message: Any) -> None:
                sent.append(message)

            client = f"203.0.113.{number % 5}"
            scope = {"type": "http", "path": "/", "method": "GET", "headers": [], "client": (client, 1)}
            await app({"scheme": "https", "query_string": b"", **scope}, receive, send)
            assert sent[0]["status"] in (404, 403)

        async def storm() -> float:
            longest = 0.0
            for batch in range(100):
                if batch == 50:
                    redis_server.pause()
                began = time.perf_counter()
                await asyncio.gather(*(request(number) for number in range(25)))
                longest = max(longest, time.perf_counter() - began)
                if batch == 60:
                    redis_server.resume()
            return longest

        try:
            assert (
                asyncio.run(storm()) < 1
            )  # a request that waits for Redis would need the budget, or 25 of them
        finally:
            redis_server.resume()
        soon(lambda: all(other.is_banned(f"203.0.113.{number}") for number in range(5)), timeout=20)
        assert call_asgi(app, scope={"client": ("203.0.113.1", 1)}).status == 403
