"""Requests for one response at the same time, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache, RedisCache
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware

REQUESTS = 20


class Slow:
    """An application whose first response waits until the test lets it go on."""

    def __init__(self, *headers: tuple[str, str], status: str = "200 OK") -> None:
        self.headers = [("Content-Type", "text/plain"), *headers]
        self.status = status
        self.calls = 0
        self.lock = threading.Lock()
        self.entered = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            self.calls += 1
            number = self.calls
        self.entered.set()
        if number == 1:
            assert self.may_go_on.wait(30)
        start_response(self.status, self.headers)
        return [f"answer {number}".encode()]


def cached(app: Any, cache: Any = None, *, compute_wait: float = 30, **rule: Any) -> Any:
    rules = [CacheRule("/*", ttl=60, **rule)]
    return ResponseCacheMiddleware(app, cache=cache or MemoryCache(), rules=rules, compute_wait=compute_wait)


def together(stack: Any, app: Slow, **request: Any) -> list[WSGIResponse]:
    """The first request, and many others that arrive while its response is being made."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        first = pool.submit(call_wsgi, stack, **request)
        assert app.entered.wait(30)
        others = [pool.submit(call_wsgi, stack, **request) for _ in range(REQUESTS - 1)]
        flights = stack._responses._flights
        while flights._waiting < REQUESTS - 1 and not all(each.done() for each in others):
            threading.Event().wait(0.001)
        app.may_go_on.set()
        return [each.result() for each in (first, *others)]


def test_one_request_makes_the_response_and_the_others_wait_for_it() -> None:
    app = Slow()
    answers = together(cached(app), app)
    assert (app.calls, {answer.body for answer in answers}) == (1, {b"answer 1"})


def test_a_response_that_cannot_be_stored_wakes_all_at_once_and_is_not_waited_for_again() -> None:
    app = Slow(("Cache-Control", "no-store"))
    stack = cached(app)
    assert {answer.status for answer in together(stack, app)} == {200}
    assert app.calls == REQUESTS
    app.calls, app.entered, app.may_go_on = 0, threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call_wsgi, stack)
        assert app.entered.wait(30)
        assert pool.submit(call_wsgi, stack).result(30).body == b"answer 2"  # while the first one is made
        app.may_go_on.set()
        assert first.result(30).body == b"answer 1"


def test_what_takes_longer_than_the_wait_is_made_again_and_not_stored() -> None:
    app = Slow()
    stack = cached(app, compute_wait=0.01)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call_wsgi, stack)
        assert app.entered.wait(30)
        assert pool.submit(call_wsgi, stack).result(30).body == b"answer 2"
        app.may_go_on.set()
        assert first.result(30).body == b"answer 1"
    assert call_wsgi(stack).body == b"answer 1"


def test_nobody_waits_without_a_wait() -> None:
    app = Slow()
    stack = cached(app, compute_wait=0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call_wsgi, stack)
        assert app.entered.wait(30)
        assert pool.submit(call_wsgi, stack).result(30).body == b"answer 2"
        app.may_go_on.set()
        first.result(30)


def test_a_stale_response_is_served_while_the_new_one_is_made() -> None:
    clock = FrozenClock()
    app = Slow()
    rules = [CacheRule("/*", ttl=60, stale_while_revalidate=60)]
    cache = MemoryCache(clock=clock, jitter=0)
    stack = ResponseCacheMiddleware(app, cache=cache, rules=rules, clock=clock)
    app.may_go_on.set()
    assert call_wsgi(stack).body == b"answer 1"
    clock.advance(70)
    app.calls = 0
    app.entered, app.may_go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        refreshing = pool.submit(call_wsgi, stack)  # its close() makes the new response
        assert app.entered.wait(30)
        assert [call_wsgi(stack).body for _ in range(3)] == [b"answer 1"] * 3
        assert app.calls == 1
        app.may_go_on.set()
        assert refreshing.result(30).body == b"answer 1"
    assert (call_wsgi(stack).header("Age"), app.calls) == ("0", 1)


def test_a_client_that_leaves_a_stale_response_in_the_middle_makes_no_new_one() -> None:
    clock, calls = FrozenClock(), []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        calls.append(environ)
        start_response("200 OK", [])
        return [b"page"]

    stack = ResponseCacheMiddleware(
        app,
        cache=MemoryCache(clock=clock, jitter=0),
        rules=[CacheRule("/*", ttl=60, stale_while_revalidate=60)],
        clock=clock,
    )
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    for body, leaves in ((b"page", False), (b"page", True)):
        result: Any = stack(environ.copy(), lambda *_: bytes)
        pieces = iter(result)
        assert next(pieces) == body
        assert leaves or list(pieces) == []
        getattr(result, "close", list)()
        clock.advance(70)
    assert len(calls) == 1


def test_a_body_that_nobody_reads_or_closes_does_not_delay_others() -> None:
    calls: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        calls.append(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"page"

    clock = FrozenClock()
    cache = MemoryCache(clock=clock, jitter=0)
    stack = ResponseCacheMiddleware(app, cache=cache, rules=[CacheRule("/*", ttl=60)], clock=clock)
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    left: Any = stack(environ.copy(), lambda *_: bytes)
    next(iter(left))
    clock.advance(3)
    assert call_wsgi(stack, headers={"Host": "x:80"}).body == b"page"  # without waiting
    clock.advance(30)
    for _ in range(2):
        assert call_wsgi(stack, headers={"Host": "x:80"}).body == b"page"
    assert len(calls) == 3


@pytest.mark.parametrize("calls", [1, 5])
def test_while_redis_is_unavailable_pages_are_made_and_nothing_waits(calls: int) -> None:
    app = Slow()
    app.may_go_on.set()
    with RedisCache("redis://127.0.0.1:1/0") as cache:
        stack = cached(app, cache)
        for number in range(1, calls + 1):
            assert call_wsgi(stack).body == f"answer {number}".encode()
        with ThreadPoolExecutor(4) as pool:
            assert len({each.body for each in pool.map(lambda _: call_wsgi(stack), range(4))}) == 4
        assert stack._responses._flights._waiting == 0


def test_variants_that_are_known_do_not_wait_for_each_other() -> None:
    cache = MemoryCache()
    app = Slow(("Vary", "Accept-Language"))
    stack = cached(app, cache)
    app.may_go_on.set()
    call_wsgi(stack, headers={"Accept-Language": "ja"})
    app.calls = 0
    app.entered, app.may_go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(call_wsgi, stack, headers={"Accept-Language": "en"})
        assert app.entered.wait(30)
        assert call_wsgi(stack, headers={"Accept-Language": "fr"}).body == b"answer 2"
        app.may_go_on.set()
        slow.result(30)
    assert call_wsgi(stack, headers={"Accept-Language": "en"}).body == b"answer 1"
