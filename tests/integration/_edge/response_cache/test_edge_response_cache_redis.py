"""Responses shared over Redis: by both shells, by processes that make them at the same time, and in an outage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.cache import (
    FastlyCDN,
    MemoryCache,
    PurgeQueue,
    PurgeResult,
    RedisCache,
    TagInvalidator,
    TieredCache,
)
from mks_hardening.testing import call_wsgi
from testbed.http_sink import Answer, HttpSink
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis
SIGNED: dict[str, Any] = {"signing_keys": ["0123456789abcdef"], "store_budget": 5}
RULES = [wsgi.CacheRule("/*", ttl=60, tags=["pages"])]


class Pages:
    """A WSGI and an ASGI application with one counter."""

    def __init__(self, *headers: tuple[str, str]) -> None:
        self.headers = [("Content-Type", "text/plain"), *headers]
        self.calls = 0
        self.entered = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def wsgi(self, _environ: Any, start_response: Any) -> list[bytes]:
        self.calls += 1
        body = f"page {self.calls}".encode()
        self.entered.set()
        assert self.may_go_on.wait(30)
        start_response("200 OK", self.headers)
        return [body]

    async def asgi(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.calls += 1
        fields = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": f"page {self.calls}".encode()})


@pytest.fixture
def redis_cache(redis_server: RedisServer) -> Iterator[Callable[[], RedisCache]]:
    """Caches of several processes: each has its own connections and leases."""
    made: list[RedisCache] = []

    def make() -> RedisCache:
        made.append(RedisCache(redis_server.url, **SIGNED))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("headers", [(), (("Vary", "Accept-Language"),)], ids=["one variant", "vary"])
def test_what_one_shell_stores_the_other_serves(
    redis_server: RedisServer, redis_cache: Any, headers: Any
) -> None:
    pages = Pages(*headers)
    for_wsgi = wsgi.ResponseCacheMiddleware(pages.wsgi, cache=redis_cache(), rules=RULES)
    fields = {"Host": "example.com", "Accept-Language": "ja"}
    first = call_wsgi(for_wsgi, "/é", query="a=1", headers=fields)

    async def ask() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/é",
            "query_string": b"a=1",
            "headers": [(b"host", b"example.com"), (b"accept-language", b"ja")],
        }
        async with RedisCache(redis_server.url, **SIGNED) as cache:
            for_asgi = asgi.ResponseCacheMiddleware(pages.asgi, cache=cache, rules=RULES)
            for _ in range(2):
                await for_asgi(scope, send, send)  # type: ignore[arg-type]  # it does not receive
        return sent

    start, body, *again = asyncio.run(ask())
    assert (start["status"], body["body"], [each["type"] for each in again]) == (
        200,
        first.body,
        ["http.response.start", "http.response.body"],
    )
    assert {(b"age", b"0"), (b"content-type", b"text/plain")} <= {*start["headers"]}
    assert call_wsgi(for_wsgi, "/é", query="a=1", headers=fields).body == b"page 1"
    assert pages.calls == 1


def test_an_invalidation_in_one_process_reaches_the_others(redis_cache: Any) -> None:
    pages = Pages()
    one, other = redis_cache(), redis_cache()
    tiers = TieredCache(MemoryCache(), other, l1_ttl=0.05)
    stacks = [wsgi.ResponseCacheMiddleware(pages.wsgi, cache=each, rules=RULES) for each in (one, tiers)]
    assert [call_wsgi(each).body for each in stacks] == [b"page 1"] * 2
    assert one.invalidate_tags("pages")
    assert call_wsgi(stacks[0]).body == b"page 2"
    assert call_wsgi(stacks[0], method="POST").status == 200
    assert call_wsgi(stacks[0]).body == b"page 4"


def test_a_page_that_another_process_makes_is_waited_for(redis_cache: Any) -> None:
    pages = Pages()
    pages.may_go_on.clear()
    stacks = [
        wsgi.ResponseCacheMiddleware(pages.wsgi, cache=redis_cache(), rules=RULES, compute_wait=20)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(call_wsgi, stacks[0])
        assert pages.entered.wait(30)
        others = [pool.submit(call_wsgi, each) for each in stacks[1:]]
        threading.Event().wait(0.2)  # they wait in Redis by now
        assert pages.calls == 1
        pages.may_go_on.set()
        assert {each.result(30).body for each in (first, *others)} == {b"page 1"}
    assert pages.calls == 1


def test_a_late_page_never_restores_what_was_invalidated(redis_cache: Any) -> None:
    pages, cache = Pages(("Vary", "Accept")), redis_cache()
    stack = wsgi.ResponseCacheMiddleware(pages.wsgi, cache=cache, rules=RULES)
    pages.may_go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(call_wsgi, stack)
        assert pages.entered.wait(30)
        redis_cache().invalidate_tags("pages")
        pages.may_go_on.set()
        assert late.result(30).body == b"page 1"
    assert call_wsgi(stack).body == b"page 2"


@pytest.mark.parametrize(
    "planted", [b"", b"\x00\x00\x00\x05nonsense", b"\xff" * 20, "text", ["list"], {"names": []}]
)
def test_values_of_another_kind_are_misses(redis_cache: Any, planted: object) -> None:
    pages, cache = Pages(), redis_cache()
    stack = wsgi.ResponseCacheMiddleware(pages.wsgi, cache=cache, rules=RULES)
    assert call_wsgi(stack).body == b"page 1"
    cache.set(_key_of(stack), planted)
    assert call_wsgi(stack).body == b"page 3"
    assert call_wsgi(stack).body == b"page 3"


def _key_of(stack: Any) -> str:
    keys: list[str] = []
    begin = stack._responses._stored.begin

    def spy(request: Any, **options: Any) -> Any:
        keys.append(request.key)
        return begin(request, **options)

    stack._responses._stored.begin = spy
    call_wsgi(stack, headers={"Cache-Control": "no-cache"})
    stack._responses._stored.begin = begin
    return keys[0]


def test_while_redis_does_not_respond_pages_are_made_within_the_budget(
    redis_server: RedisServer, redis_cache: Any
) -> None:
    pages = Pages()
    with RedisCache(redis_server.url, store_budget=0.1) as cache:
        stack = wsgi.ResponseCacheMiddleware(pages.wsgi, cache=cache, rules=RULES)
        assert call_wsgi(stack).body == b"page 1"
        redis_server.pause()
        try:
            assert [call_wsgi(stack).body for _ in range(3)] == [b"page 2", b"page 3", b"page 4"]
        finally:
            redis_server.resume()


def test_on_a_loop_while_redis_does_not_respond_pages_are_made(redis_server: RedisServer) -> None:
    pages = Pages()

    async def play() -> int:
        async with RedisCache(redis_server.url, store_budget=0.1) as cache:
            stack = asgi.ResponseCacheMiddleware(pages.asgi, cache=cache, rules=RULES)
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> Any:
                return {"type": "http.request"}

            scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"example.com")]}
            await stack(scope, receive, send)
            redis_server.pause()
            try:
                await asyncio.gather(*(stack({**scope}, receive, send) for _ in range(20)))
            finally:
                redis_server.resume()
            return len(sent)

    assert asyncio.run(play()) == 42
    assert pages.calls == 21


@pytest.mark.parametrize("with_asyncio", [False, True], ids=["def", "async def"])
def test_one_call_invalidates_pages_in_the_memory_of_each_process_in_redis_and_in_the_cdn(
    redis_cache: Any, http_sink: HttpSink, with_asyncio: bool
) -> None:
    http_sink.default = lambda request: Answer(body=dict.fromkeys(request.json()["surrogate_keys"], "108-1"))
    pages = Pages()
    # Two processes, each with the pages in its own memory as well.
    caches = [
        TieredCache(MemoryCache(namespace=f"l1-{number}"), redis_cache(), l1_ttl=0.2) for number in range(2)
    ]
    shells = [wsgi.ResponseCacheMiddleware(pages.wsgi, cache=cache, rules=RULES) for cache in caches]
    untagged = wsgi.ResponseCacheMiddleware(pages.wsgi, cache=caches[1], rules=[wsgi.CacheRule("/x", ttl=60)])
    assert {call_wsgi(shell, "/").body for shell in shells} == {b"page 1"}
    assert call_wsgi(untagged, "/x").body == b"page 2"
    with (
        FastlyCDN(
            "SU1Z0isxPaozGVKXdv0eY", api_token="t" * 32, base_url=f"http://localhost:{http_sink.port}"
        ) as cdn,
        PurgeQueue(cdn, window=3600) as queue,
    ):
        invalidator = TagInvalidator(caches[0], cdn=queue)

        async def invalidate() -> list[PurgeResult]:
            found = [await invalidator.ainvalidate(["pages"]) for _ in range(3)]
            await caches[0].aclose()
            return found

        results = (
            asyncio.run(invalidate())
            if with_asyncio
            else [invalidator.invalidate(["pages"]) for _ in range(3)]
        )
        assert [(found.ok, found.queued) for found in results] == [(True, ("pages",))] * 3
        # The other process drops its copy as soon as Redis reports the change, or after its short lifetime.
        wait_until(lambda: call_wsgi(shells[1], "/").body == b"page 3", timeout=20, what="a new page")
        assert with_asyncio or call_wsgi(shells[0], "/").body == b"page 3"
        assert call_wsgi(untagged, "/x").body == b"page 2"
        queue.flush()
        assert [request.json() for request in http_sink.requests] == [{"surrogate_keys": ["pages"]}]
