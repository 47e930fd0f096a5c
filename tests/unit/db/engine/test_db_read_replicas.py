"""Read replicas: which engine serves a read, in every order of writes, replay, failures and promotions."""

from __future__ import annotations

from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from mks_hardening._core import operations
from mks_hardening.db import ReadReplicas, ReadToken, hardened_async_engine, hardened_engine
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock

URL = "postgresql+psycopg://app@host/app"
SYSTEM = 7713484264682427845


class Dialect:
    name = "postgresql"


class Server:
    """Stands for an engine and the server behind it."""

    dialect = Dialect()

    def __init__(self, *, is_replica: bool = True) -> None:
        self.is_replica = is_replica
        self.position = 100
        self.timeline = 1
        self.is_broken = False
        self.replays_per_check = 0
        self.checks = 0

    def execution_options(self, **_: object) -> Server:
        return self

    def connect(self) -> Server:
        self.checks += 1
        if self.is_broken:
            raise OperationalError("connect", {}, ConnectionError("refused"))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def exec_driver_sql(self, statement: str) -> Server:
        self.statement = statement
        return self

    def one(self) -> tuple[object, ...]:
        if "walfile" in self.statement:
            return SYSTEM, f"{self.timeline:08X}", self.position, 8192
        self.position += self.replays_per_check
        return self.is_replica, self.position, self.timeline, SYSTEM


class World:
    def __init__(self, replicas: int = 2) -> None:
        self.clock = FrozenClock()
        self.primary = Server(is_replica=False)
        self.servers = [Server() for _ in range(replicas)]
        given: Any = (self.primary, self.servers)
        self.replicas: Any = ReadReplicas(*given, max_wait=0.05, retry_after=1, clock=self.clock)

    def write(self) -> ReadToken:
        self.primary.position += 10
        token: ReadToken = self.replicas.token()
        return token


@pytest.fixture(autouse=True)
def _sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping advances the clock of the test."""

    def sleep(seconds: float) -> None:
        _clocks[-1].advance(seconds)

    monkeypatch.setattr(operations.time, "sleep", sleep)


_clocks: list[FrozenClock] = []


@pytest.fixture
def world() -> World:
    made = World()
    _clocks[:] = [made.clock]
    return made


def test_reads_without_a_token_take_turns(world: World) -> None:
    assert [world.replicas.engine() for _ in range(4)] == world.servers * 2


def test_a_read_waits_for_its_write(world: World) -> None:
    token = world.write()
    for server in world.servers:
        server.replays_per_check = 4
    began = world.clock.monotonic()
    assert world.replicas.engine(after=token) is world.servers[0]
    assert world.servers[0].checks == 3
    assert world.clock.monotonic() - began == pytest.approx(0.003)


def test_a_replica_that_lags_is_waited_for_once(world: World) -> None:
    token = world.write()
    began = world.clock.monotonic()
    assert world.replicas.engine(after=token) is world.primary
    waited = world.clock.monotonic() - began
    assert 0 < waited <= 0.05
    for _ in range(10):
        assert world.replicas.engine(after=token) is world.primary
    assert world.clock.monotonic() - began == waited
    world.servers[1].position = token.position
    assert world.replicas.engine(after=token) is world.servers[1]


def test_a_dead_replica_is_left_out_until_it_is_asked_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.servers[0].is_broken = True
    assert {world.replicas.engine() for _ in range(6)} == {world.servers[1]}
    assert world.servers[0].checks == 1
    world.servers[1].is_broken = True
    assert world.replicas.engine() is world.primary
    world.clock.advance(1)
    world.replicas.engine()
    assert world.servers[0].checks == 2
    assert len(caplog.records) == 2  # once for each replica
    for server in world.servers:
        server.is_broken = False
    world.clock.advance(1)
    assert {world.replicas.engine() for _ in range(2)} == {*world.servers}


@pytest.mark.parametrize(("timeline", "is_replica"), [(2, True), (1, False)])
def test_another_history_is_not_read(world: World, timeline: int, is_replica: bool) -> None:
    token = world.write()
    for server in world.servers:
        server.position, server.timeline, server.is_replica = 10**9, timeline, is_replica
    began = world.clock.monotonic()
    assert world.replicas.engine(after=token) is world.primary
    assert world.clock.monotonic() == began  # waiting would not help


@pytest.mark.parametrize(
    ("inserted", "reached"),
    [(8192 * 5 + 24, 8192 * 5), (2**24 + 40, 2**24), (8192 * 5 + 48, 8192 * 5 + 48), (8192 * 5, 8192 * 5)],
)
def test_a_token_at_the_start_of_a_page_can_be_reached(world: World, inserted: int, reached: int) -> None:
    """The primary reports a position behind the page header, which an idle replica never reaches."""
    world.primary.position = inserted
    assert world.replicas.token().position == reached


@given(
    st.builds(
        ReadToken,
        system=st.integers(-(2**63), 2**63 - 1),
        timeline=st.integers(0, 2**32 - 1),
        position=st.integers(0, 2**64 - 1),
    )
)
def test_a_token_is_read_again(token: ReadToken) -> None:
    assert ReadToken.parse(str(token)) == token


@pytest.mark.parametrize("text", ["", "1-2", "1-2-3-4", "1-2-x", "１-2-3", "1-2-3\n", "9" * 5000, 7, None])
def test_other_texts_are_no_tokens(text: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReadToken.parse(text)
    assert caught.value.parameter == "text"


@pytest.mark.parametrize(
    ("parameter", "given"),
    [
        ("primary", {"primary": create_engine("sqlite://")}),
        ("primary", {"primary": "postgresql://"}),
        ("replicas", {"replicas": [create_engine("sqlite://")]}),
        ("replicas", {"replicas": hardened_engine(URL)}),
        ("replicas", {"replicas": [hardened_async_engine(URL)]}),
        ("max_wait", {"max_wait": -1}),
        ("retry_after", {"retry_after": "1"}),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReadReplicas(**{"primary": hardened_engine(URL), "replicas": [], **given})
    assert caught.value.parameter == parameter


def test_methods_of_the_other_kind_are_named() -> None:
    asynchronous: Any = ReadReplicas(hardened_async_engine(URL), [])
    for call, instead in ((asynchronous.token, "atoken"), (asynchronous.engine, "aengine")):
        with pytest.raises(ConfigurationError, match=f"call {instead}"):
            call()
    with pytest.raises(ConfigurationError) as caught:
        ReadReplicas(hardened_engine(URL), []).engine(after="token")  # type: ignore[arg-type] # that is the test
    assert caught.value.parameter == "after"


class EveryHistory(RuleBasedStateMachine):
    """Writes, replay, failures and promotions in any order; no read misses a write it must see."""

    @initialize(replicas=st.integers(0, 3))
    def begin(self, replicas: int) -> None:
        self.world = World(replicas)
        self.tokens: list[ReadToken] = []
        self.failed_at: dict[Server, float] = {}
        _clocks[:] = [self.world.clock]

    @rule()
    def write(self) -> None:
        self.tokens.append(self.world.write())

    @precondition(lambda self: self.world.servers)
    @rule(data=st.data(), share=st.sampled_from([0.5, 1]), per_check=st.sampled_from([0, 3]))
    def replay(self, data: st.DataObject, share: float, per_check: int) -> None:
        server = data.draw(st.sampled_from(self.world.servers))
        server.replays_per_check = per_check
        behind = self.world.primary.position - server.position
        if server.timeline == self.world.primary.timeline:
            server.position += int(behind * share)

    @precondition(lambda self: self.world.servers)
    @rule(data=st.data(), is_broken=st.booleans())
    def fail_or_recover(self, data: st.DataObject, is_broken: bool) -> None:
        data.draw(st.sampled_from(self.world.servers)).is_broken = is_broken

    @rule()
    def promote(self) -> None:
        self.world.primary.timeline += 1

    @precondition(lambda self: self.world.servers)
    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.world.servers)).timeline = self.world.primary.timeline

    @rule(seconds=st.sampled_from([0.01, 1]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(self.tokens))
        clock = self.world.clock
        began = clock.monotonic()
        chosen = self.world.replicas.engine(after=token)
        assert clock.monotonic() - began <= 0.05
        if chosen is not self.world.primary:
            assert not chosen.is_broken
            assert (chosen.timeline, chosen.position >= token.position) == (token.timeline, True)

    @invariant()
    def the_primary_is_spared(self) -> None:
        if not hasattr(self, "world") or not self.world.servers or not self.tokens:
            return
        self.world.clock.advance(1)  # failures are forgotten
        token = self.tokens[-1]
        can_serve = [
            server
            for server in self.world.servers
            if not server.is_broken
            and server.timeline == token.timeline
            and server.position >= token.position
        ]
        if can_serve:
            assert self.world.replicas.engine(after=token) is not self.world.primary


TestEveryHistory = EveryHistory.TestCase
TestEveryHistory.settings = settings(stateful_step_count=25)
