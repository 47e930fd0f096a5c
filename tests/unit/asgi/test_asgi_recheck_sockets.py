"""A WebSocket that stays open longer than its session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_server import Server, run, socket
from mks_hardening.asgi import MemorySessionStore, SessionManager, SessionTimeoutMiddleware
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock
from wsgi_session_corpus import SwitchedStore

EVERY = 0.01
CONNECT = {"type": "websocket.connect"}


class Site:
    """A store with a session of alice, and the connection of her WebSocket."""

    def __init__(self, **options: Any) -> None:
        self.clock = FrozenClock()
        self.store: Any = MemorySessionStore(clock=self.clock)
        self.options = {"recheck_sockets": EVERY, **options}
        self.got: list[Any] = []
        self.server = Server(CONNECT)

    def wrapped(self, app: Any) -> SessionTimeoutMiddleware:
        return SessionTimeoutMiddleware(app, store=self.store, **self.options)

    async def cookie(self) -> str:
        handle = self.wrapped(self.chat).open(None)
        await handle.astart("alice")
        return f"__Host-mks-session={handle.session_id}"

    async def chat(self, scope: Any, receive: Any, send: Any) -> None:
        """Echoes, until the client is gone."""
        while True:
            message = await receive()
            self.got.append(message)
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            elif message["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            else:
                return

    async def ticker(self, scope: Any, receive: Any, send: Any) -> None:
        """Sends, and never receives."""
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(EVERY / 4)

    async def open(self, app: Any = None, cookie: str | None = None) -> asyncio.Task[Any]:
        headers = {"Cookie": cookie or await self.cookie()}
        task = asyncio.create_task(self.server.serve(self.wrapped(app or self.chat), socket(headers=headers)))
        opened = asyncio.Event()
        self.server.on_send = lambda message: opened.set()
        await opened.wait()
        return task


async def ended(task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(5):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def still_open(task: asyncio.Task[Any]) -> None:
    await asyncio.sleep(EVERY * 5)
    assert not task.done()


@pytest.mark.parametrize("app", ["chat", "ticker"])
def test_a_socket_is_closed_when_its_session_has_been_ended(app: str) -> None:
    async def play() -> Site:
        site = Site()
        task = await site.open(getattr(site, app))
        await still_open(task)
        await SessionManager(site.store).aend_user("alice")
        await ended(task)
        return site

    site = run(play())
    assert site.server.sent[-1] == {"type": "websocket.close", "code": 1008}
    assert site.server.types.count("websocket.close") == 1
    if app == "chat":
        assert site.got[-1]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("seconds", [1800, 28800])
def test_idle_and_absolute_limits_count_while_it_is_open(seconds: float) -> None:
    async def play() -> Site:
        site = Site(idle_timeout=1800 if seconds == 1800 else 28800)
        task = await site.open()
        site.clock.advance(seconds - 1)
        await still_open(task)
        site.clock.advance(1)
        await ended(task)
        return site

    assert run(play()).server.sent[-1]["code"] == 1008


def test_a_new_id_of_the_same_sign_in_is_no_end() -> None:
    async def play() -> None:
        site = Site()
        cookie = await site.cookie()
        task = await site.open(cookie=cookie)
        assert await (await site.wrapped(site.chat).aopen(cookie)).arotate()
        await still_open(task)
        await SessionManager(site.store).aend_user("alice")
        await ended(task)

    run(play())


def test_a_store_that_is_unavailable_closes_nothing() -> None:
    async def play() -> None:
        site = Site(outage_grace=0)
        site.store = SwitchedStore(site.store)
        task = await site.open()
        site.store.away = True
        await still_open(task)
        site.store.away = False
        await SessionManager(site.store).aend_user("alice")
        await ended(task)

    run(play())


def test_without_the_option_a_socket_stays_open() -> None:
    async def play() -> None:
        site = Site(recheck_sockets=None)
        task = await site.open()
        await SessionManager(site.store).aend_user("alice")
        await still_open(task)
        site.server.push({"type": "websocket.disconnect", "code": 1000})
        await ended(task)

    run(play())


@pytest.mark.parametrize("end", ["client", "application", "cancelled", "error"])
def test_nothing_is_left_behind(end: str) -> None:
    async def play() -> Site:
        site = Site()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            await receive()
            if end == "application":
                await send({"type": "websocket.close"})
                await asyncio.sleep(EVERY * 3)  # a look-up now would close it once more
            if end == "error":
                raise KeyError

        task = await site.open(app)
        await SessionManager(site.store).aend_user("alice") if end == "application" else None
        if end == "cancelled":
            task.cancel()
        else:
            kind = "disconnect" if end == "client" else "receive"
            site.server.push({"type": f"websocket.{kind}", "text": "x", "code": 1001})
        await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(EVERY * 3)
        return site

    site = run(play())
    assert [message.get("code", 1000) for message in site.server.sent[1:]] == (
        [1000] if end == "application" else []
    )


def test_sockets_without_a_session_are_left_alone() -> None:
    async def play() -> None:
        site = Site()
        task = await site.open(cookie="other=1")
        await still_open(task)
        site.server.push({"type": "websocket.disconnect", "code": 1000})
        await ended(task)

    run(play())


@pytest.mark.parametrize("wrong", [0, -1, "1", True, float("nan")])
def test_the_interval_is_checked(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Site(recheck_sockets=wrong).wrapped(Site().chat)
    assert refused.value.parameter == "recheck_sockets"
