"""When a copy may be served, by what was sent on the channel to Redis and what has come back."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from fakeredis import FakeRedis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mks_hardening._core.backend.redis_push_channel import PushMessage
from mks_hardening.cache import MemoryCache, NullCache, RedisCache, TieredCache
from mks_hardening.cache.backends._client_tracking import TRUSTED_FOR, ChannelTrust
from mks_hardening.exceptions import ConfigurationError

KEYS = ["a", "b"]


def as_key(name: bytes) -> Any:
    return "key", name.decode()


class ChannelMachine(RuleBasedStateMachine):
    """One reader with copies, one server with versions, and a channel that delivers late, never, or breaks.

    A copy is read again only while the channel is trusted. Invariant: a copy that may be served is not older than
    what the server had ``TRUSTED_FOR`` seconds ago, and not older than the last change that has been delivered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.values = dict.fromkeys(KEYS, 0)
        self.copies: dict[str, int] = {}
        self.history: dict[str, list[tuple[float, int]]] = {key: [(0.0, 0)] for key in KEYS}
        self.open()

    def open(self) -> None:
        self.trust = ChannelTrust()
        self.requests: deque[str] = deque()
        self.arriving: deque[Any] = deque()
        self.is_tracked = False
        self.send("TRACK")

    def send(self, command: str) -> None:
        self.trust.sent(self.now)
        self.requests.append(command)

    @rule(seconds=st.sampled_from([0.01, 0.3, 0.6, 1.0, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from(KEYS))
    def somebody_writes(self, key: str) -> None:
        self.values[key] += 1
        self.history[key].append((self.now, self.values[key]))
        if self.is_tracked:
            self.arriving.append(PushMessage([b"invalidate", [key.encode()]]))

    @rule()
    def the_server_is_emptied(self) -> None:
        for key in KEYS:
            self.somebody_writes(key)
            if self.is_tracked:
                self.arriving.pop()
        if self.is_tracked:
            self.arriving.append(PushMessage([b"invalidate", None]))

    @precondition(lambda self: self.requests)
    @rule()
    def the_server_responds(self) -> None:
        self.is_tracked = True
        self.arriving.append(b"OK" if self.requests.popleft() == "TRACK" else b"PONG")

    @precondition(lambda self: self.arriving)
    @rule()
    def a_message_arrives(self) -> None:
        message = self.arriving.popleft()
        for kind, name in self.trust.invalidated(message, as_key):
            if kind == "key":
                self.copies.pop(name, None)
            else:
                self.copies.clear()
        self.trust.applied(message)

    @rule()
    def the_channel_is_checked(self) -> None:
        if self.trust.is_silent(self.now):
            self.the_channel_breaks()
        elif self.trust.must_ping(self.now):
            self.send("PING")

    @rule()
    def the_channel_breaks(self) -> None:
        self.copies.clear()
        self.open()
        assert self.now >= self.trust.until

    @precondition(lambda self: self.now < self.trust.until)
    @rule(key=st.sampled_from(KEYS))
    def a_copy_is_made(self, key: str) -> None:
        self.copies[key] = self.values[key]

    @invariant()
    def no_served_copy_is_older_than_promised(self) -> None:
        if self.now < self.trust.until:
            for key, copy in self.copies.items():
                oldest = max(value for at, value in self.history[key] if at <= self.now - TRUSTED_FOR)
                assert copy >= oldest
                if not self.arriving:
                    assert copy == self.values[key]


TestChannelMachine = ChannelMachine.TestCase


@pytest.mark.parametrize(
    "message", [ValueError("NOPERM this user has no permissions"), [b"x"], 1, None, b"too many"]
)
def test_a_response_that_is_none_breaks_the_channel(message: Any) -> None:
    trust = ChannelTrust()
    if not isinstance(message, bytes):
        trust.sent(1.0)
    with pytest.raises(ValueError, match=r"NOPERM|unexpected"):
        trust.invalidated(message, as_key)


@pytest.mark.parametrize(
    "message",
    [PushMessage([b"message", b"channel", b"text"]), PushMessage([])],
)
def test_other_reports_invalidate_nothing_and_confirm_nothing(message: PushMessage) -> None:
    trust = ChannelTrust()
    trust.sent(1.0)
    assert not trust.invalidated(message, as_key)
    trust.applied(message)
    assert not trust.until


@pytest.mark.parametrize("message", [[b"invalidate"], [b"invalidate", None], [b"invalidate", [1]]])
def test_a_report_without_names_invalidates_everything(message: list[Any]) -> None:
    assert list(ChannelTrust().invalidated(PushMessage(message), as_key)) == [("pattern", "*")]


REFUSED: dict[str, tuple[Any, str]] = {
    "a fake": (
        lambda: TieredCache(MemoryCache(), RedisCache(FakeRedis()), client_tracking=True),
        "cannot report changes",
    ),
    "a cluster": (
        lambda: TieredCache(MemoryCache(), RedisCache("redis+cluster://127.0.0.1:1"), client_tracking=True),
        "Cluster",
    ),
    "other tiers": (
        lambda: TieredCache(MemoryCache(), NullCache(), client_tracking=True),
        "not MemoryCache and NullCache",
    ),
    "not a boolean": (
        lambda: TieredCache(MemoryCache(), MemoryCache(), client_tracking=1),  # type: ignore[arg-type]
        "client_tracking",
    ),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_tracked_is_refused_with_the_reason(make: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        make()
    assert caught.value.parameter == "client_tracking"
