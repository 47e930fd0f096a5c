"""Former names of attributes and methods still work for one release, with a ``DeprecationWarning``."""

from __future__ import annotations

import asyncio
from typing import Any

import fakeredis
import pytest
import sqlalchemy

from mks_hardening import security, testing
from mks_hardening.cache import CacheStats
from mks_hardening.exceptions import DeliveryError
from mks_hardening.protocols import Transport
from mks_hardening.testing import FrozenClock, RecordingTransport, TransportContract, call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionHandle, SessionTimeoutMiddleware


@pytest.mark.parametrize(
    ("module", "former", "current"),
    [
        (testing, "WSGIAnswer", "WSGIResponse"),
        (testing, "ASGIAnswer", "ASGIResponse"),
        (security, "PasswordFault", "PasswordErrorCode"),
    ],
)
def test_names_of_a_package(module: Any, former: str, current: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{former} is now called {current}"):
        assert getattr(module, former) is getattr(module, current)


def test_attributes_of_values() -> None:
    with pytest.warns(DeprecationWarning, match=r"owed_invalidations is now called pending_invalidations"):
        assert CacheStats(pending_invalidations=3).owed_invalidations == 3
    with pytest.warns(DeprecationWarning, match=r"PasswordVerdict\.faults is now called errors"):
        assert security.PasswordVerdict(errors=("common",)).faults == ("common",)


def test_a_session_handle() -> None:
    clock = FrozenClock()
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        handle: SessionHandle = environ["mks_hardening.session"]
        handle.start("alice")
        with pytest.warns(DeprecationWarning, match=r"SessionHandle\.lives is now called exists"):
            assert handle.lives is handle.exists is True
        with pytest.warns(DeprecationWarning, match=r"hands_out_cookie is now called sets_cookie"):
            assert handle.hands_out_cookie is handle.sets_cookie is True
        with pytest.warns(DeprecationWarning, match=r"hand_out_again is now called resend_cookie"):
            handle.hand_out_again()
        with pytest.warns(DeprecationWarning, match=r"forget is now called discard"):
            handle.forget("idle", cleared=True)
        seen.append(handle.reason)
        assert not handle.exists
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    wrapped = SessionTimeoutMiddleware(
        app, store=MemorySessionStore(clock=clock), idle_timeout=1800, absolute_timeout=7200
    )
    assert call_wsgi(wrapped).status == 200
    assert seen == ["idle"]


@pytest.mark.parametrize("kind", ["memory", "redis", "sql"])
def test_our_passkey_stores(kind: str) -> None:
    engine = None
    store: Any
    if kind == "memory":
        store = security.MemoryPasskeyStore()
    elif kind == "redis":
        store = security.RedisPasskeyStore(fakeredis.FakeRedis(), store_budget=30)
    else:
        engine = sqlalchemy.create_engine(
            "sqlite://", poolclass=sqlalchemy.StaticPool, connect_args={"check_same_thread": False}
        )
        store = security.SQLAlchemyPasskeyStore(engine)
        store.create_tables()
    with pytest.warns(DeprecationWarning, match="keep_challenge is now called save_challenge"):
        store.keep_challenge("a", b"1", ttl=60)
    with pytest.warns(DeprecationWarning, match="take_challenge is now called consume_challenge"):
        assert store.take_challenge("a") == b"1"
    with pytest.warns(DeprecationWarning, match="claim is now called assign_owner"):
        assert store.claim("c", "u") == "u"

    async def play() -> None:
        with pytest.warns(DeprecationWarning, match="akeep_challenge is now called asave_challenge"):
            await store.akeep_challenge("b", b"2", ttl=60)
        with pytest.warns(DeprecationWarning, match="atake_challenge is now called aconsume_challenge"):
            assert await store.atake_challenge("b") == b"2"
        with pytest.warns(DeprecationWarning, match="aclaim is now called aassign_owner"):
            assert await store.aclaim("c", "v") == "u"
        if kind == "redis":
            await store.aclose()

    asyncio.run(play())
    store.close()
    if engine is not None:
        engine.dispose()


class SuiteWithFormerNames(TransportContract):
    def make_transport(self) -> Transport:
        self.transport = RecordingTransport()
        return self.transport

    def received(self) -> list[bytes]:
        return [message.body for message in self.transport.messages]

    def take_away(self) -> None:
        self.transport.failures = [DeliveryError("refused", temporary=True)]

    def bring_back(self) -> None:
        self.transport.failures = []


def test_a_transport_suite() -> None:
    with pytest.warns(DeprecationWarning, match="is now called") as caught:
        SuiteWithFormerNames().test_an_unreachable_destination_is_a_temporary_error()
    assert [str(one.message) for one in caught] == [
        "take_away is now called make_unreachable",
        "bring_back is now called make_reachable",
    ]
    with pytest.raises(NotImplementedError):
        TransportContract().make_unreachable()
