"""Health checks and limiters on an event loop: neither may hold it up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from asgi_server import Server, call, hello, http, run
from mks_hardening.asgi import (
    HealthMiddleware,
    MemorySessionStore,
    RateLimitMiddleware,
    RateLimitRule,
    SessionTimeoutMiddleware,
    limit_by_header,
    limit_by_user,
)
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock

# --- health


def said(server: Server) -> tuple[int, dict[str, str]]:
    return server.sent[0]["status"], json.loads(server.sent[1]["body"])["checks"]


async def fine() -> None:
    await asyncio.sleep(0)


async def refused() -> bool:
    return False


async def broken() -> None:
    raise ConnectionError("redis://:secret@10.0.0.9 refused")


async def hangs() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("required", "optional", "expected"),
    [
        ({"a": fine}, {}, (200, {"a": "ok"})),
        ({"a": fine, "b": lambda: None}, {}, (200, {"a": "ok", "b": "ok"})),
        ({"a": refused}, {}, (503, {"a": "failed"})),
        ({"a": broken}, {"b": fine}, (503, {"a": "failed", "b": "ok"})),
        ({"a": fine}, {"b": broken}, (200, {"a": "ok", "b": "failed"})),
        ({"a": hangs, "b": fine}, {}, (503, {"a": "timeout", "b": "ok"})),
        ({"a": fine}, {"b": hangs}, (200, {"a": "ok", "b": "timeout"})),
    ],
)
def test_checks_may_be_async(required: Any, optional: Any, expected: tuple[int, dict[str, str]]) -> None:
    app = HealthMiddleware(hello, required=required, optional=optional, timeout=0.5)
    assert said(call(app, http("/readyz"))) == expected


def test_async_checks_run_on_the_loop_of_the_request_and_others_do_not() -> None:
    async def play() -> None:
        seen: list[bool] = []

        async def on_loop() -> None:
            seen.append(asyncio.get_running_loop() is loop)

        def in_thread() -> None:
            seen.append(threading.get_ident() != here)

        loop, here = asyncio.get_running_loop(), threading.get_ident()
        app = HealthMiddleware(hello, required={"a": on_loop, "b": in_thread})
        await Server().serve(app, http("/readyz"))
        assert seen == [True, True]

    run(play())


def test_the_same_middleware_works_on_one_loop_after_the_other() -> None:
    app = HealthMiddleware(hello, required={"a": fine}, cache_for=0)
    for _ in range(3):
        assert said(call(app, http("/readyz"))) == (200, {"a": "ok"})


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_check_that_hangs_holds_up_nobody(kind: str, release: threading.Event) -> None:
    started: list[int] = []

    def plain() -> None:
        started.append(1)
        release.wait(30)

    async def on_loop() -> None:
        started.append(1)
        await asyncio.Event().wait()

    app = HealthMiddleware(
        hello, required={"slow": plain if kind == "plain" else on_loop}, timeout=0.3, cache_for=0
    )

    async def probe() -> None:
        server = Server()
        await server.serve(app, http("/readyz"))
        assert said(server) == (503, {"slow": "timeout"})

    async def play() -> None:
        probing = asyncio.create_task(probe())
        while not started:  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.001)
        for _ in range(20):
            await Server().serve(app, http("/"))
            await asyncio.sleep(0)
        assert not probing.done()
        await probing
        await probe()

    run(play())
    assert len(started) <= (1 if kind == "plain" else 2)


def test_side_by_side_probes_share_one_round() -> None:
    asked: list[int] = []

    async def play() -> None:
        all_have_asked = asyncio.Event()

        async def check() -> None:
            asked.append(1)
            await all_have_asked.wait()

        app = HealthMiddleware(hello, required={"a": check}, clock=FrozenClock())
        servers = [Server() for _ in range(10)]
        probes = [asyncio.create_task(server.serve(app, http("/readyz"))) for server in servers]
        for _ in range(100):  # turns of the loop
            await asyncio.sleep(0)
        all_have_asked.set()
        await asyncio.gather(*probes)
        assert {said(server)[0] for server in servers} == {200}

    run(play())
    assert asked == [1]


def test_a_probe_that_is_cancelled_leaves_the_others_alone() -> None:
    async def play() -> None:
        gate = asyncio.Event()

        async def check() -> None:
            await gate.wait()

        app = HealthMiddleware(hello, required={"a": check}, timeout=5)
        first = asyncio.create_task(Server().serve(app, http("/readyz")))
        await asyncio.sleep(0.02)
        server = Server()
        second = asyncio.create_task(server.serve(app, http("/readyz")))
        await asyncio.sleep(0.02)
        first.cancel()
        gate.set()
        await asyncio.wait([first])
        await second
        assert said(server) == (200, {"a": "ok"})

    run(play())


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 405)])
def test_probes_over_http_only(method: str, status: int) -> None:
    app = HealthMiddleware(hello, required={})
    server = call(app, http("/livez", method=method))
    assert server.sent[0]["status"] == status
    assert (server.sent[1]["body"] == b"") == (method == "HEAD")
    mounted = call(app, http("/app/livez", root_path="/app"))
    assert json.loads(mounted.sent[1]["body"]) == {"status": "ok"}


# --- limits


class Limit(NamedTuple):
    name: str
    quota: int
    window: float


class Decided(NamedTuple):
    allowed: bool
    limits: list[Limit]
    remaining: list[int]
    reset_after: list[float]
    retry_after: float | None

    def __bool__(self) -> bool:
        return self.allowed


class PlainLimiter:
    """A limiter of a user, without asyncio methods; notes the threads that call it."""

    def __init__(self, quota: int = 2) -> None:
        self.quota = quota
        self.keys: list[str] = []
        self.threads: set[int] = set()

    def hit(self, group: str, key: str, *, cost: int = 1) -> Decided:
        self.threads.add(threading.get_ident())
        allowed = self.keys.count(key) < self.quota
        self.keys.append(key)
        return Decided(allowed, [Limit(group, self.quota, 60)], [0], [30.0], None if allowed else 9.5)


class AsyncLimiterOfAUser(PlainLimiter):
    """One with ``ahit`` alone."""

    def hit(self, group: str, key: str, *, cost: int = 1) -> Decided:
        raise AssertionError("on the loop, ahit is called")

    async def ahit(self, group: str, key: str, *, cost: int = 1) -> Decided:
        await asyncio.sleep(0)
        allowed = self.keys.count(key) < self.quota
        self.keys.append(key)
        return Decided(allowed, [Limit(group, self.quota, 60)], [0], [30.0], None if allowed else 9.5)


def limited(limiter: Any, **rule: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(hello, limiter=limiter, rules=[RateLimitRule("all", **rule)])


@pytest.mark.parametrize("kind", [PlainLimiter, AsyncLimiterOfAUser])
def test_limiters_of_users(kind: type[PlainLimiter]) -> None:
    limiter = kind()
    servers: list[Server] = []

    async def play() -> None:
        app = limited(limiter)
        for _ in range(3):
            servers.append(Server())
            await servers[-1].serve(app, http())

    run(play())
    assert [server.sent[0]["status"] for server in servers] == [200, 200, 429]
    assert servers[2].header("retry-after") == "10"
    assert threading.get_ident() not in limiter.threads
    assert limiter.keys == ["192.0.2.7"] * 3


def test_exactly_the_quota_of_requests_side_by_side() -> None:
    async def play() -> list[int]:
        app = limited(RateLimiter({"all": "10 per minute"}))
        servers = [Server() for _ in range(40)]
        await asyncio.gather(*(server.serve(app, http()) for server in servers))
        return [server.sent[0]["status"] for server in servers]

    statuses = run(play())
    assert (statuses.count(200), statuses.count(429)) == (10, 30)


@pytest.mark.parametrize("client", [None, ("", None), ("not an address", 1)])
def test_clients_without_an_address_share_one_count(client: Any) -> None:
    app = limited(RateLimiter({"all": "1 per minute"}))
    statuses = [call(app, http(client=client)).sent[0]["status"] for _ in range(2)]
    assert statuses == [200, 429]


def test_keys_get_the_scope() -> None:
    app = limited(PlainLimiter(1), key=lambda scope: scope["path"])
    statuses = [call(app, http(path)).sent[0]["status"] for path in ("/a", "/b", "/a")]
    assert statuses == [200, 200, 429]


def test_a_header_counts_for_itself_and_a_user_inside_of_the_session() -> None:
    by_key = limited(PlainLimiter(1), key=limit_by_header("X-API-Key", verified=True))
    statuses = [call(by_key, http(headers={"X-API-Key": key})).sent[0]["status"] for key in "aba"]
    assert statuses == [200, 200, 429]
    limiter = PlainLimiter(9)
    inside = SessionTimeoutMiddleware(limited(limiter, key=limit_by_user), store=MemorySessionStore())
    session = inside.open(None)
    run(session.astart("alice"))
    call(inside, http(headers={"Cookie": f"__Host-mks-session={session.session_id}"}))
    call(inside, http())
    assert limiter.keys == ["user:alice", "192.0.2.7"]
    with pytest.raises(ConfigurationError, match="limit_by_user"):
        RateLimitMiddleware(
            SessionTimeoutMiddleware(hello, store=MemorySessionStore()),
            limiter=limiter,
            rules=[RateLimitRule("all", key=limit_by_user)],
        )
