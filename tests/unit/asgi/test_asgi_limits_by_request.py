"""Rate limits that depend on the request and its response, on an event loop: what WSGI has no words for."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from asgi_server import Server, call, http, run, socket
from mks_hardening.asgi import (
    GroupChoice,
    LimitedResponse,
    RateLimitMiddleware,
    RateLimitRule,
    set_request_cost,
)
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock

HERE = "192.0.2.7"
START = {"type": "http.response.start", "status": 200, "headers": []}


class Limited:
    """An application behind a limit of five whose cost is the result of ``final``; notes the responses it saw."""

    def __init__(self, app: Any, final: Any = 0, **rule: Any) -> None:
        self.limiter = RateLimiter({"g": "5 per minute"}, clock=FrozenClock())
        self.seen: list[LimitedResponse] = []

        def final_cost(request: dict[str, Any], response: LimitedResponse) -> int:
            self.seen.append(response)
            result: int = final(response) if callable(final) else final
            return result

        self.app = RateLimitMiddleware(
            app, limiter=self.limiter, rules=[RateLimitRule("g", final_cost=final_cost, **rule)]
        )

    @property
    def used(self) -> int:
        return 5 - self.limiter.test("g", HERE).remaining[0]


def sending(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


# --- which group


async def plan_of(scope: dict[str, Any]) -> str:
    await asyncio.sleep(0)
    if scope["path"] == "/broken":
        raise LookupError
    return str(scope["path"].removeprefix("/"))


class PlanOf:
    async def __call__(self, scope: dict[str, Any]) -> str:
        return await plan_of(scope)


@pytest.mark.parametrize("choose", [plan_of, PlanOf(), partial(plan_of)])
@pytest.mark.parametrize(
    ("path", "group"), [("/free", "free"), ("/team", "team"), ("/other", "free"), ("/broken", "free")]
)
def test_an_asynchronous_function_chooses_the_group(choose: Any, path: str, group: str) -> None:
    limiter = RateLimiter({"free": "1 per minute", "team": "2 per minute"}, clock=FrozenClock())
    rule = RateLimitRule(GroupChoice(choose, groups=["team"], fallback="free"))
    app = RateLimitMiddleware(sending(START, {"type": "http.response.body"}), limiter=limiter, rules=[rule])
    statuses = [call(app, http(path)).sent[0]["status"] for _ in range(3)]
    quota = {"free": 1, "team": 2}[group]
    assert statuses == [200] * quota + [429] * (3 - quota)


def test_a_client_that_leaves_while_the_group_is_chosen_ends_the_request() -> None:
    entered = asyncio.Event()

    async def hangs(scope: dict[str, Any]) -> str:
        entered.set()
        await asyncio.Event().wait()
        return "g"

    async def play() -> None:
        limiter = RateLimiter({"g": "5 per minute"})
        rule = RateLimitRule(GroupChoice(hangs, groups=["g"], fallback="g"))
        app = RateLimitMiddleware(sending(START), limiter=limiter, rules=[rule])
        task = asyncio.create_task(Server().serve(app, http()))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert limiter.test("g", HERE).remaining[0] == 5

    run(play())


# --- cost after the response


def test_costs_are_corrected_before_the_last_byte_and_before_background_work() -> None:
    states: list[tuple[str, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"12", "more_body": True})
        states.append(("streaming", limited.used))
        await send({"type": "http.response.body", "body": b"34"})
        states.append(("background", limited.used))

    limited = Limited(app, lambda response: response.body_bytes)

    async def play() -> None:
        server = Server()
        server.on_send = lambda message: states.append((message["type"].rpartition(".")[2], limited.used))
        await server.serve(limited.app, http())

    run(play())
    assert states == [("start", 1), ("body", 1), ("streaming", 1), ("body", 4), ("background", 4)]
    assert limited.seen == [LimitedResponse(status=200, body_bytes=4, complete=True)]


@pytest.mark.parametrize(
    ("messages", "size"),
    [
        ([{"type": "http.response.pathsend", "path": "/f"}], 4),
        ([{"type": "http.response.zerocopysend", "file": 3, "count": 3}], 3),
        ([{"type": "http.response.zerocopysend", "file": 3}], 4),
        (
            [
                {"type": "http.response.zerocopysend", "file": 3, "count": 3, "more_body": True},
                {"type": "http.response.body", "body": b"12"},
            ],
            5,
        ),
        (
            [
                {"type": "http.response.body", "body": b"12"},
                {"type": "http.response.trailers", "headers": []},
            ],
            2,
        ),
    ],
)
def test_what_the_server_sends_by_itself_counts(messages: list[dict[str, Any]], size: int) -> None:
    start = {**START, "headers": [(b"content-length", b"4")]}
    limited = Limited(sending(start, *messages), lambda response: response.body_bytes)
    server = call(limited.app, http())
    assert server.sent[1:] == messages  # as they were
    assert limited.used == size


@pytest.mark.parametrize("more", [0, 1])
def test_the_handler_reports_its_cost_from_a_copy_of_the_scope(more: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        set_request_cost({**scope}, 3)
        await send(START)
        await send({"type": "http.response.body"})

    limited = Limited(app, lambda response: response.handler_cost + more)
    call(limited.app, http())
    assert limited.used == 3 + more


class GoneError(OSError):
    """What servers raise from ``send`` when the client has left (ASGI 2.4)."""


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_client_that_left_is_told_by_send(fails_at: int) -> None:
    chunk = {"type": "http.response.body", "body": b"12", "more_body": True}
    limited = Limited(sending(START, chunk, chunk), lambda response: response.body_bytes + 1)

    async def play() -> None:
        server = Server()

        def gone(message: Any) -> None:
            if len(server.sent) > fails_at:
                raise GoneError

        server.on_send = gone
        with pytest.raises(GoneError):
            await server.serve(limited.app, http())

    run(play())
    assert limited.seen == [LimitedResponse(status=200, body_bytes=2 * fails_at, complete=False)]
    assert limited.used == 2 * fails_at + 1


@pytest.mark.parametrize(("started", "used"), [(False, 1), (True, 3)])
def test_a_request_that_is_cancelled(started: bool, used: int) -> None:
    """Before the response it costs what was reserved: leaving early must not make failures free of charge."""
    waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if started:
            await send(START)
        waiting.set()
        await asyncio.Event().wait()

    limited = Limited(app, 3)

    async def play() -> None:
        task = asyncio.create_task(Server().serve(limited.app, http()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(play())
    assert limited.used == used


def test_the_correction_survives_a_second_cancellation() -> None:
    """Cancel scopes of anyio cancel again at each await."""
    release = asyncio.Event()
    correcting = asyncio.Event()

    class Slow:
        def __init__(self, limiter: RateLimiter) -> None:
            self.hit, self.reserve, self._limiter, self._calls = limiter.hit, limiter.reserve, limiter, 0

        async def areserve(self, group: str, key: str, *, cost: int = 1, recheck: bool = True) -> Any:
            self._calls += 1
            if self._calls == 2:
                correcting.set()
                await release.wait()
            return await self._limiter.areserve(group, key, cost=cost, recheck=recheck)

    async def play() -> None:
        limiter = RateLimiter({"g": "5 per minute"}, clock=FrozenClock())
        rule = RateLimitRule("g", final_cost=lambda request, response: 4)
        app = RateLimitMiddleware(
            sending(START, {"type": "http.response.body"}), limiter=Slow(limiter), rules=[rule]
        )
        task = asyncio.create_task(Server().serve(app, http()))
        await correcting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        for _ in range(100):
            await asyncio.sleep(0)
        assert limiter.test("g", HERE).remaining[0] == 1

    run(play())


def test_a_handler_that_fails_costs_what_was_reserved_and_its_error_stays() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    limited = Limited(app, 0)
    with pytest.raises(RuntimeError, match="broken"):
        call(limited.app, http())
    assert (limited.used, limited.seen) == (1, [])


def test_requests_at_once_are_admitted_by_what_is_reserved() -> None:
    """Four of a limit of five cost three each: all were admitted, the bucket is full, and no more than full."""
    inside: list[int] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(1)
        await go.wait()
        await send(START)
        await send({"type": "http.response.body"})

    limited = Limited(app, 3)

    async def play() -> None:
        servers = [Server() for _ in range(7)]
        tasks = [asyncio.create_task(server.serve(limited.app, http())) for server in servers]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        go.set()
        await asyncio.gather(*tasks)
        assert sorted(server.sent[0]["status"] for server in servers) == [200] * 5 + [429] * 2
        late = Server()
        await late.serve(limited.app, http())
        assert late.sent[0]["status"] == 429

    run(play())
    assert (len(inside), limited.used) == (5, 5)


# --- WebSockets


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "websocket.accept"}, {"type": "websocket.close"}], 101),
        ([{"type": "websocket.close"}], 403),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": []},
                {"type": "websocket.http.response.body", "body": b"1"},
            ],
            401,
        ),
    ],
)
def test_a_socket_costs_when_it_is_accepted_or_denied(messages: list[dict[str, Any]], status: int) -> None:
    limited = Limited(sending(*messages), lambda response: 2 if response.status == status else 0)
    call(limited.app, socket(), {"type": "websocket.connect"})
    assert [response.status for response in limited.seen] == [status]
    assert limited.used == 2


def test_other_scopes_pass() -> None:
    limited = Limited(sending({"type": "lifespan.startup.complete"}))
    server = call(limited.app, {"type": "lifespan", "asgi": {"version": "3.0"}})
    assert (server.types, limited.seen) == (["lifespan.startup.complete"], [])
