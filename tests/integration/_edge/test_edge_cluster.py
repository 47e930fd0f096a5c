"""Cached responses, and costs that are corrected after the response, on a Redis Cluster."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.cache import RedisCache
from mks_hardening.security import RateLimiter
from mks_hardening.testing import call_wsgi
from testbed.redis_groups import RedisCluster

pytestmark = [pytest.mark.slow, pytest.mark.redis]
SHELLS = pytest.mark.parametrize("area", [wsgi, asgi], ids=["wsgi", "asgi"])


def cluster_url(cluster: RedisCluster) -> str:
    return cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")


class Pages:
    """An application that numbers its responses."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        status = "401 Unauthorized" if environ["PATH_INFO"] == "/refused" else "200 OK"
        start_response(status, [("Content-Type", "text/plain")])
        return [b"page %d" % next(self._numbers)]

    async def asgi(self, scope: Any, _receive: Any, send: Any) -> None:
        status = 401 if scope["path"] == "/refused" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"page %d" % next(self._numbers)})


class Client:
    """Calls the application of a shell; for ASGI, all calls run on one event loop, which owns the connections."""

    def __init__(self, area: Any) -> None:
        self._is_wsgi = area is wsgi
        self._runner = asyncio.Runner()
        pages = Pages()
        self.app: Any = pages.wsgi if self._is_wsgi else pages.asgi

    def call(self, app: Any, path: str) -> tuple[int, bytes]:
        if self._is_wsgi:
            answer = call_wsgi(app, path)
            return answer.status, answer.body
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"a.test")]}
        scope |= {"client": ("127.0.0.1", 1), "scheme": "http", "query_string": b""}
        self._runner.run(app(scope, receive, send))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    def close(self, *closing: Any) -> None:
        for each in closing:
            if not self._is_wsgi:
                self._runner.run(each.aclose())
            each.close()
        self._runner.close()


@SHELLS
def test_responses_are_shared_and_invalidated(area: Any, redis_cluster: RedisCluster) -> None:
    how: dict[str, Any] = {"signing_keys": ["0123456789abcdef"], "store_budget": 5, "allow_plaintext": True}
    one, two = (RedisCache(cluster_url(redis_cluster), **how) for _ in range(2))
    rules = [area.CacheRule("/*", ttl=60, tags=["pages"])]
    client = Client(area)
    try:
        first = area.ResponseCacheMiddleware(client.app, cache=one, rules=rules)
        second = area.ResponseCacheMiddleware(client.app, cache=two, rules=rules)
        paths = [f"/page/{number}" for number in range(12)]  # on several nodes
        bodies = {path: client.call(first, path) for path in paths}
        assert len({*bodies.values()}) == len(paths)
        assert {path: client.call(second, path) for path in paths} == bodies
        one.invalidate_tags("pages")
        assert not {client.call(second, path) for path in paths} & {*bodies.values()}
    finally:
        client.close(one, two)


@SHELLS
@pytest.mark.parametrize("final", [0, 3])
def test_costs_are_corrected(area: Any, final: int, redis_cluster: RedisCluster) -> None:
    limiter = RateLimiter(
        {"g": "10 per hour"}, storage=cluster_url(redis_cluster), store_budget=5, allow_plaintext=True
    )
    client = Client(area)
    try:
        rule = area.RateLimitRule(
            "g", final_cost=lambda _request, response: final if response.status == 401 else 0
        )
        app = area.RateLimitMiddleware(client.app, limiter=limiter, rules=[rule])
        assert [client.call(app, "/refused")[0] for _ in range(3)] == [401] * 3
        assert limiter.test("g", "127.0.0.1").remaining[0] == 10 - 3 * final
        assert [client.call(app, "/")[0] for _ in range(3)] == [200] * 3
        assert limiter.test("g", "127.0.0.1").remaining[0] == 10 - 3 * final
        assert client.call(app, "/refused")[0] == 401  # of the 3 hits that it costs, 1 is left
        assert client.call(app, "/")[0] == (429 if final else 200)
    finally:
        client.close(limiter)
