"""Sessions on an event loop: which methods may be called where, streams that outlive their session, cookies."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from asgi_server import Server, call, http, run, socket
from mks_hardening.asgi import MemorySessionStore, SessionHandle, SessionManager, SessionTimeoutMiddleware
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock
from wsgi_session_corpus import SwitchedStore

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b""}
NAME = "__Host-mks-session"


class RemoteStore(SwitchedStore):
    """A store that does I/O, as far as the middleware knows; notes the threads of its plain methods."""

    def __init__(self, *, twins: bool = True) -> None:
        super().__init__(MemorySessionStore())
        self.threads: set[int] = set()
        self.twins = twins

    def __getattr__(self, name: str) -> Any:
        if not self.twins and name.startswith("a") and hasattr(self.store, name[1:]):
            raise AttributeError(name)
        found = super().__getattr__(name)
        if not callable(found) or hasattr(self.store, "a" + name) is False:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.threads.add(threading.get_ident())
            return found(*args, **options)

        call.__name__ = name
        call.__self__ = self  # type: ignore[attr-defined]
        return call


class Site:
    """An application that does in a request what the test says."""

    def __init__(self, store: Any = None, **options: Any) -> None:
        self.clock = FrozenClock()
        self.store = store if store is not None else RemoteStore()
        self.do: Any = None
        self.wrapped = SessionTimeoutMiddleware(self.app, store=self.store, clock=self.clock, **options)
        self.cookie = ""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        handle: SessionHandle = scope["mks_hardening.session"]
        if self.do is not None:
            await self.do(handle)
        await send(dict(START))
        await send(dict(BODY))

    async def visit(self, do: Any = None) -> Server:
        self.do = do
        server = Server()
        headers = {"Cookie": self.cookie} if self.cookie else {}
        await server.serve(self.wrapped, http(headers=headers))
        value = server.header("set-cookie")
        if value is not None:
            self.cookie = "" if "Max-Age=0" in value else value.partition(";")[0]
        return server

    async def sign_in(self) -> None:
        await self.visit(lambda handle: handle.astart("alice"))


PLAIN: dict[str, Any] = {
    "start": lambda handle: handle.start("bob"),
    "start_anonymous": lambda handle: handle.start_anonymous(),
    "rotate": lambda handle: handle.rotate(),
    "refresh": lambda handle: handle.refresh(),
    "update_data": lambda handle: handle.update_data(a=1),
    "merge_data": lambda handle: handle.merge_data({"a": 1}),
    "end": lambda handle: handle.end(),
    "end_others": lambda handle: handle.end_others(),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_methods_are_for_worker_threads(name: str) -> None:
    """On the loop they would hold up every other request; the message names the method to use."""

    async def play() -> None:
        site = Site()
        await site.sign_in()

        async def on_loop(handle: SessionHandle) -> None:
            with pytest.raises(RuntimeError, match=r"await the method .* begins with a"):
                PLAIN[name](handle)
            assert handle.user_id == "alice"

        assert (await site.visit(on_loop)).sent[0]["status"] == 200

        async def in_thread(handle: SessionHandle) -> None:
            await asyncio.to_thread(PLAIN[name], handle)

        assert (await site.visit(in_thread)).sent[0]["status"] == 200

    run(play())


def test_the_memory_of_the_process_needs_no_thread() -> None:
    async def play() -> None:
        site = Site(MemorySessionStore())

        async def start(handle: SessionHandle) -> None:
            handle.start("alice")

        await site.visit(start)
        assert site.cookie

    run(play())


@pytest.mark.parametrize("twins", [True, False])
def test_no_store_is_called_on_the_loop(twins: bool) -> None:
    """With asyncio methods these are awaited; a store without them is called in worker threads."""

    async def play() -> RemoteStore:
        store = RemoteStore(twins=twins)
        site = Site(store)
        await site.sign_in()
        for do in (
            lambda handle: handle.aupdate_data(a=1),
            lambda handle: handle.arefresh(),
            lambda handle: handle.arotate(),
            lambda handle: handle.aend_others(),
            lambda handle: handle.aend(),
        ):
            assert (await site.visit(do)).sent[0]["status"] == 200
        assert site.cookie == ""
        return store

    store = run(play())
    assert threading.get_ident() not in store.threads
    assert bool(store.threads) == (not twins)


# --- streams


@pytest.mark.parametrize("by", ["manager", "idle", "absolute"])
@pytest.mark.parametrize("then", ["arefresh", "aupdate_data", "arotate"])
def test_a_stream_never_revives_a_session(then: str, by: str) -> None:
    async def play() -> None:
        site = Site(idle_timeout=600, absolute_timeout=600 if by == "absolute" else 3600)
        await site.sign_in()
        begun, over = asyncio.Event(), asyncio.Event()
        results: list[Any] = []

        async def stream(scope: Any, receive: Any, send: Any) -> None:
            handle: SessionHandle = scope["mks_hardening.session"]
            if then == "arotate":
                begun.set()
                await over.wait()
                results.append(await handle.arotate())
            await send(dict(START))
            await send({**BODY, "more_body": True})
            begun.set()
            await over.wait()
            if then == "arefresh":
                results.append(await handle.arefresh())
            elif then == "aupdate_data":
                results.append(await handle.aupdate_data(a=1))
            await send(dict(BODY))

        site.wrapped._app = stream
        task = asyncio.create_task(Server().serve(site.wrapped, http(headers={"Cookie": site.cookie})))
        await begun.wait()
        if by == "manager":
            await SessionManager(site.store.store, clock=site.clock).aend_user("alice")
        else:
            site.clock.advance(601)
            site.wrapped._app = site.app
            assert (await site.visit()).sent[0]["status"] == 401  # another request finds that it has expired
        over.set()
        await task
        assert not results[0]
        site.wrapped._app = site.app
        assert (await site.visit()).sent[0]["status"] in (401, 200)
        assert await SessionManager(site.store.store, clock=site.clock).asessions("alice") == []

    run(play())


def test_a_stream_is_not_cut_when_its_session_ends() -> None:
    async def play() -> None:
        site = Site(recheck_sockets=0.01)
        await site.sign_in()

        async def stream(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(START))
            await SessionManager(site.store.store, clock=site.clock).aend_user("alice")
            for _ in range(5):
                await asyncio.sleep(0.01)
                await send({**BODY, "body": b"x", "more_body": True})
            await send(dict(BODY))

        site.wrapped._app = stream
        server = Server()
        await server.serve(site.wrapped, http(headers={"Cookie": site.cookie}))
        assert b"".join(message.get("body", b"") for message in server.sent) == b"xxxxx"

    run(play())


# --- outages and cookies


def test_an_outage_in_the_application_is_a_503_where_that_is_still_possible() -> None:
    async def play() -> None:
        site = Site()
        await site.sign_in()

        async def fails(handle: SessionHandle) -> None:
            site.store.away = True
            await handle.arotate()

        before = site.cookie
        server = await site.visit(fails)
        assert server.sent[0]["status"] == 503
        assert server.header("retry-after") == "2"
        assert site.cookie == before

        async def begun(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(START))
            await scope["mks_hardening.session"].aupdate_data(a=1)

        site.wrapped._app = begun
        with pytest.raises(BackendUnavailableError):
            await Server().serve(site.wrapped, http(headers={"Cookie": site.cookie}))

    run(play())


def test_a_500_of_the_framework_during_an_outage_is_a_503() -> None:
    async def play() -> None:
        site = Site()

        async def framework(scope: Any, receive: Any, send: Any) -> None:
            site.store.away = True
            try:
                await scope["mks_hardening.session"].astart("bob")
            except BackendUnavailableError:
                await send({**START, "status": 500})
                await send(dict(BODY))

        site.wrapped._app = framework
        server = Server()
        await server.serve(site.wrapped, http())
        assert server.sent[0]["status"] == 503
        assert server.header("retry-after") == "2"
        assert server.header("set-cookie") is None

    run(play())


def test_dead_cookies_are_hidden_on_public_paths() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append([value for name, value in scope["headers"] if name == b"cookie"])
        seen.append(scope["mks_hardening.session"].reason)
        await send(dict(START))
        await send(dict(BODY))

    wrapped = SessionTimeoutMiddleware(
        app, store=MemorySessionStore(), public_paths=["/open"], strip_cookies=["remember"]
    )
    lines = [(b"host", b"a"), (b"cookie", f"{NAME}={'A' * 43}; a=b".encode()), (b"cookie", b"remember=1")]
    server = call(wrapped, http("/open", headers=lines))
    assert seen == [[b"a=b"], "revoked"]
    cookies = [value for name, value in server.sent[0]["headers"] if name == b"set-cookie"]
    assert all(b"Max-Age=0" in value for value in cookies)


def test_a_cookie_may_come_in_several_lines() -> None:
    """HTTP/2 splits it (RFC 9113, 8.2.3)."""

    async def play() -> None:
        site = Site()
        await site.sign_in()
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["mks_hardening.session"].user_id)
            await send(dict(START))
            await send(dict(BODY))

        site.wrapped._app = app
        fields = [(b"cookie", b"a=b"), (b"COOKIE", site.cookie.encode()), (b"cookie", b"c=d")]
        await Server().serve(site.wrapped, http(headers=[(b"host", b"a"), *fields]))
        assert seen == ["alice"]

    run(play())


def test_open_and_aopen_find_the_same_session() -> None:
    async def play() -> None:
        site = Site(MemorySessionStore())
        await site.sign_in()
        assert (
            (await site.wrapped.aopen(site.cookie)).user_id
            == site.wrapped.open(site.cookie).user_id
            == "alice"
        )
        for cookies in (None, "", "other=1", f"{NAME}={'A' * 43}", f"{NAME}=short"):
            assert not (await site.wrapped.aopen(cookies)).alive
            assert not site.wrapped.open(cookies).alive

    run(play())


def test_a_socket_may_sign_out() -> None:
    async def play() -> None:
        site = Site()
        await site.sign_in()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await scope["mks_hardening.session"].aend()
            await send({"type": "websocket.close"})

        site.wrapped._app = app
        await Server().serve(site.wrapped, socket(headers={"Cookie": site.cookie}))
        site.wrapped._app = site.app
        assert (await site.visit()).sent[0]["status"] == 401

    run(play())
