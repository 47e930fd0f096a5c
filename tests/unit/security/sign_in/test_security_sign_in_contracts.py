"""The stores of sign-ins under way without a server: their contract over fakeredis, and what they keep."""

from __future__ import annotations

from typing import Any

import pytest

from losing_redis import LosingRedis
from mks_hardening.events import SignInEvent, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import MemorySignInStore, RedisSignInStore, SignIn, SignInAccount, SignInClient
from mks_hardening.testing import FrozenClock, SignInStoreContract
from on_loop import TwinsOfStores


class TestMemory(SignInStoreContract):
    def make_store(self) -> Any:
        self.clock = FrozenClock()
        return MemorySignInStore(clock=self.clock)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestFakeRedis(SignInStoreContract):
    def make_store(self) -> Any:
        self.server = LosingRedis()
        return RedisSignInStore(self.server, store_budget=30)

    def pass_time(self, seconds: float) -> None:
        for key in self.server.keys("*"):
            left = self.server.pttl(key) - int(seconds * 1000)
            if left > 0:
                self.server.pexpire(key, left)
            else:
                self.server.delete(key)


class TestTwins(TwinsOfStores, TestFakeRedis):
    def over(self) -> Any:
        return TestFakeRedis.make_store(self)


def test_what_stands_in_redis() -> None:
    server = LosingRedis()
    with RedisSignInStore(server, namespace="ns", store_budget=25, clock=FrozenClock()) as store:
        assert store.replace("challenge:1", b"a\nb", expected=None, version="v1", ttl=10_000)
        assert server.get("ns:sign-in:challenge:1") == b"v1\na\nb"
        assert 9_990_000 < server.pttl("ns:sign-in:challenge:1") <= 10_000_000
        assert store.replace("short", b"", expected=None, version="v1", ttl=0.0001)
        assert store._client._lease.budget == 25
        assert "sign-in" in repr(store)
    with pytest.raises(ConfigurationError, match="clear text"):
        RedisSignInStore("redis://cache.example.com")
    RedisSignInStore("redis://cache.example.com", allow_plaintext=True).close()


def test_a_lost_answer_is_asked_for_again() -> None:
    server = LosingRedis()
    with RedisSignInStore(server, store_budget=30) as store:
        for expected, version in ((None, "v"), ("v", "w")):
            server.script_flush()
            server.lose = True
            assert store.replace("k", b"x", expected=expected, version=version, ttl=60)
            assert not server.lose
        server.lose = True
        assert store.load("k") == ("w", b"x")
        assert not server.lose


def test_a_value_that_somebody_else_has_put_there_is_no_error() -> None:
    server = LosingRedis()
    with RedisSignInStore(server, store_budget=30) as store:
        server.set("mks:sign-in:k", b"\xff\xfe")
        assert store.load("k") == ("\ufffd\ufffd", b"")


class Nobody:
    """Accounts without any."""

    def find(self, _name: str) -> None:
        return None

    get = find

    def set_password(self, _user_id: str, _stored: str, *, expected: str | None) -> bool:
        return expected == "never"


class Wrong:
    """Passwords that are all wrong."""

    def verify(self, _password: str, _stored: str | None) -> bool:
        return False

    def hash(self, password: str) -> str:
        return password

    def needs_rehash(self, _stored: str) -> bool:
        return False


def test_a_name_that_nobody_has_is_told_as_nobodys() -> None:
    sign_in = SignIn(
        Nobody(), store=MemorySignInStore(), limiter=None, factors=None, end_sessions=None, passwords=Wrong()
    )
    events: list[Any] = []
    add_observer(events.append)
    try:
        step = sign_in.password("x", "y", client=SignInClient(address="203.0.113.9"))
    finally:
        remove_observer(events.append)
    assert (step.state, step.user_id, step.challenge) == ("refused", None, None)
    assert events == [SignInEvent("refused", "", "203.0.113.9", "unknown", "password")]


@pytest.mark.parametrize(
    ("field", "value"),
    [("user_id", ""), ("user_id", 7), ("password_hash", b"x"), ("disabled", "no"), ("stamp", None)],
)
def test_an_impossible_account_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SignInAccount(**{"user_id": "u", "password_hash": None, field: value})
    assert refused.value.parameter == field
