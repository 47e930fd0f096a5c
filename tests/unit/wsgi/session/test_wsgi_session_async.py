"""Sessions on an event loop: the same algorithm as for ``def``, and a plain store in a worker thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from mks_hardening._edge.session.response_headers import SessionResponseHeaders
from mks_hardening._edge.session.session_lookup import SessionLookup
from mks_hardening._edge.session.session_rules import SessionLimits
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import AsyncSessionStore, SessionRecord
from mks_hardening.testing import FrozenClock, SessionStoreContract
from mks_hardening.wsgi import MemorySessionStore, SessionCookie, SessionHandle, SessionManager
from on_loop import OnLoop
from wsgi_session_corpus import SwitchedStore


class TestTwinsOfTheMemoryStore(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def _loops(self) -> Iterator[None]:
        self._made: list[OnLoop] = []
        yield
        for store in self._made:
            store.close()

    def make_store(self) -> Any:
        self._made.append(OnLoop(MemorySessionStore()))
        return self._made[-1]


def test_the_memory_store_has_all_twins() -> None:
    store: AsyncSessionStore = MemorySessionStore()
    assert asyncio.run(store.aload("k")) is None


def twins_of(kind: type) -> list[tuple[str, str]]:
    methods = dict(inspect.getmembers(kind, inspect.isfunction))
    return [(name, "a" + name) for name in methods if "a" + name in methods and not name.startswith("_")]


@pytest.mark.parametrize("kind", [SessionHandle, SessionManager, MemorySessionStore])
def test_twins_take_the_same_arguments(kind: type) -> None:
    assert len(twins_of(kind)) >= 3
    for plain, twin in twins_of(kind):
        assert inspect.signature(getattr(kind, plain)) == inspect.signature(getattr(kind, twin)), plain
        assert inspect.iscoroutinefunction(getattr(kind, twin))


# --- keeper and handle


class PlainStore:
    """A user's store without twins; notes which threads called it."""

    def __init__(self, store: MemorySessionStore) -> None:
        self._store = store
        self.threads: set[int] = set()

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        self.threads.add(threading.get_ident())
        return getattr(self._store, name)(*args, **options)

    def load(self, key: str, /) -> SessionRecord | None:
        return self._call("load", key)  # type: ignore[no-any-return]

    def create(self, record: SessionRecord, /, **options: Any) -> list[str]:
        return self._call("create", record, **options)  # type: ignore[no-any-return]

    def rotate(self, key: str, new_key: str, /, **options: Any) -> SessionRecord | None:
        return self._call("rotate", key, new_key, **options)  # type: ignore[no-any-return]

    def touch(self, key: str, /, **times: float) -> bool:
        return bool(self._call("touch", key, **times))

    def update(self, key: str, /, **options: Any) -> bool:
        return bool(self._call("update", key, **options))

    def end(self, key: str, /, *, reason: str) -> bool:
        return bool(self._call("end", key, reason=reason))

    def end_user(self, user_id: str, /, **options: Any) -> int:
        return int(self._call("end_user", user_id, **options))

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        return self._call("sessions", user_id, now=now)  # type: ignore[no-any-return]

    def ping(self) -> bool:
        return True

    def close(self) -> None: ...


class Site:
    def __init__(self, kind: str) -> None:
        self.clock = FrozenClock()
        memory = MemorySessionStore(clock=self.clock)
        self.plain = PlainStore(memory)
        self.store: Any = self.plain if kind == "plain" else memory
        self.expired: list[str] = []
        self.keeper = SessionLookup(
            self.store,
            limits=SessionLimits(1800.0, 28800.0),
            write_interval=10.0,
            outage_grace=60.0,
            max_sessions=2,
            on_expired=lambda record, reason: self.expired.append(reason),
            clock=self.clock,
        )
        self.fields = SessionResponseHeaders(SessionCookie(), also_cleared=(), warn_before=0.0)
        self.session_id = ""

    async def visit(self, do: Callable[[SessionHandle], Awaitable[Any]] | None = None) -> tuple[str, Any]:
        """Why the session is over, and what the application got of its handle."""
        found: Any = (None, "", 0.0)
        if self.session_id:
            found = await self.keeper.afind(self.session_id, active=True)
        record, reason, deadline = found
        if reason:
            return reason, None
        handle = SessionHandle(self.keeper, self.fields, self.session_id, record, deadline)
        result = None if do is None else await do(handle)
        headers: list[tuple[str, str]] = []
        handle.step("200 OK", headers)
        for name, value in headers:
            if name == "Set-Cookie":
                self.session_id = "" if "Max-Age=0" in value else value.partition("=")[2].partition(";")[0]
        return "", result


@pytest.mark.parametrize("kind", ["plain", "twins"])
def test_a_session_from_sign_in_to_sign_out(kind: str) -> None:
    site = Site(kind)

    async def play() -> None:
        assert await site.visit(lambda handle: handle.astart("alice", data={"level": 1})) == ("", None)
        first = site.session_id
        assert await site.visit(lambda handle: handle.aupdate_data(name="x")) == ("", True)
        site.clock.advance(100)
        assert await site.visit(lambda handle: handle.arefresh()) == ("", 1800.0)
        assert await site.visit(lambda handle: handle.arotate(data={"level": 2})) == ("", True)
        assert site.session_id != first
        second, site.session_id = site.session_id, first
        assert await site.visit() == ("rotated", None)
        site.session_id = second
        assert await site.visit(lambda handle: handle.aend_others()) == ("", 0)
        assert len(await SessionManager(site.store, clock=site.clock).asessions("alice")) == 1
        assert await site.visit(lambda handle: handle.aend()) == ("", True)
        site.session_id = second
        assert await site.visit() == ("revoked", None)

    asyncio.run(play())
    assert threading.get_ident() not in site.plain.threads
    assert bool(site.plain.threads) == (kind == "plain")


@pytest.mark.parametrize("kind", ["plain", "twins"])
def test_limits_and_managers(kind: str) -> None:
    site = Site(kind)

    async def play() -> None:
        manager = SessionManager(site.store, clock=site.clock)
        await site.visit(lambda handle: handle.astart("alice"))
        site.clock.advance(1799)
        assert await site.visit() == ("", None)
        site.clock.advance(1800)
        assert await site.visit() == ("idle", None)
        assert site.expired == ["idle"]
        site.session_id = ""
        await site.visit(lambda handle: handle.astart("alice"))
        (record,) = await manager.asessions("alice")
        assert await manager.aend(record)
        assert await manager.aend_user("alice") == 0
        assert await site.visit() == ("revoked", None)

    asyncio.run(play())


def test_an_outage_is_bridged_and_a_change_is_not() -> None:
    site = Site("twins")
    site.store = switched = SwitchedStore(site.store)  # answers to the names of the twins too
    site.keeper.store = switched  # type: ignore[assignment]

    async def play() -> None:
        await site.visit(lambda handle: handle.astart("alice"))
        switched.away = True
        assert await site.visit() == ("", None)
        with pytest.raises(BackendUnavailableError):
            await site.visit(lambda handle: handle.arotate())
        site.clock.advance(60)
        with pytest.raises(BackendUnavailableError):
            await site.visit()

    asyncio.run(play())
