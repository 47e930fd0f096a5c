"""The Redis store without a server: its contract over fakeredis, what it asks for, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import fakeredis
import pytest
import redis

from mks_hardening._core.resilience.budget import current_budget
from mks_hardening._edge.session.stores.server_clock import ServerClock
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import FrozenClock, SessionStoreContract
from mks_hardening.wsgi import RedisSessionStore
from on_loop import OnLoop

NOW = 1_700_000_000.0
RETENTION = 300


def over(client: Any, **options: Any) -> RedisSessionStore:
    """A store that a busy machine does not put out of time."""
    return RedisSessionStore(client, **{"store_budget": 30, **options})


class TestContract(SessionStoreContract):
    def make_store(self) -> RedisSessionStore:
        return over(fakeredis.FakeRedis())


class TestTwins(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def _loops(self) -> Iterator[None]:
        self._made: list[OnLoop] = []
        yield
        for store in self._made:
            store.close()

    def make_store(self) -> Any:
        self._made.append(OnLoop(over(fakeredis.FakeRedis())))
        return self._made[-1]


class Noting:
    """A client that notes commands and budgets, and answers what it is told to."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.commands: list[tuple[Any, ...]] = []
        self.budgets: list[Any] = []

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self.commands.append(command)
        self.budgets.append(current_budget())
        if command[0] == "EVALSHA":
            raise redis.exceptions.NoScriptError("NOSCRIPT No matching script.")
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def record(key: str = "k", *, at: float = NOW, life: float = 100.0) -> SessionRecord:
    return SessionRecord(key, "u", at, at, at + life)


OPERATIONS: dict[str, tuple[tuple[Any, ...], dict[str, Any], Any]] = {
    "settle": ((), {}, [[b"1700000000", b"0"], [None] * 7]),
    "load": (("k",), {}, [[b"1700000000", b"0"], [None] * 7]),
    "create": ((record(),), {"now": NOW}, []),
    "rotate": (("k", "n"), {"now": NOW}, None),
    "touch": (("k",), {"seen_at": NOW, "expires_at": NOW + 1}, 1),
    "update": (("k",), {"version": 0, "data": "{}"}, 1),
    "end": (("k",), {"reason": "idle"}, 1),
    "end_user": (("u",), {"now": NOW}, 1),
    "sessions": (("u",), {"now": NOW}, []),
}


@pytest.mark.parametrize("twin", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_round_trips_of_an_operation_have_one_budget(operation: str, twin: bool) -> None:
    arguments, options, answer = OPERATIONS[operation]
    client = Noting(answer)
    with over(client) as store:
        if twin:
            asyncio.run(getattr(store, "a" + operation)(*arguments, **options))
        else:
            getattr(store, operation)(*arguments, **options)
    first, second = client.budgets  # by digest, which the server does not know, and then whole
    assert first is second is not None
    assert first.of_operation


def test_keys_have_one_hash_tag_and_live_five_minutes_longer() -> None:
    fake = fakeredis.FakeRedis()
    with over(fake) as store:
        store.create(record(), now=NOW)
        store.load("k")
        assert all(
            bytes(key).startswith((b"{mks:sessions}:s:", b"{mks:sessions}:u:")) for key in fake.keys("*")
        )
        assert all(340 < fake.pttl(key) / 1000 <= 100 + RETENTION for key in fake.keys("*"))
        store.touch("k", seen_at=NOW + 50, expires_at=NOW + 1050)
        assert all(1240 < fake.pttl(key) / 1000 <= 1000 + RETENTION for key in fake.keys("*"))
        assert repr(store) == "RedisSessionStore('{mks:sessions}:')"
    with over(fake, namespace="other") as store:
        assert store.load("k") is None
        # What is over already still leaves a trace of its end.
        store.create(record(life=60 - RETENTION), now=NOW)
        assert fake.keys("{other}:s:k")
        store.create(record(life=-RETENTION), now=NOW)  # for no time at all: at least no error


@pytest.mark.parametrize(
    ("field", "value"),
    [("c", b"x"), ("t", b""), ("x", b"soon"), ("u", b"\xff"), ("d", b"\xff"), ("v", b"x"), ("v", None)],
)
@pytest.mark.parametrize("settled", [False, True], ids=["first look", "later"])
def test_a_damaged_record_is_no_session(field: str, value: bytes | None, settled: bool) -> None:
    fake = fakeredis.FakeRedis()
    with over(fake) as store:
        if settled:
            store.settle()
        store.create(record(), now=NOW)
        if value is None:
            fake.hdel("{mks:sessions}:s:k", field)
        else:
            fake.hset("{mks:sessions}:s:k", field, value)
        assert store.load("k") is None
        assert store.sessions("u", now=NOW) == []


def test_a_key_of_another_type_is_taken_away() -> None:
    fake = fakeredis.FakeRedis()
    with over(fake) as store:
        store.settle()
        fake.set("{mks:sessions}:s:k", "planted")
        assert store.load("k") is None
        assert not fake.exists("{mks:sessions}:s:k")


def test_another_error_of_a_server_is_none_of_the_record() -> None:
    client = Noting([[b"1700000000", b"0"], []], redis.exceptions.ResponseError("ERR of another kind"))
    with over(client) as store:
        store.settle()
        with pytest.raises(BackendUnavailableError):
            store.load("k")
    assert [command[0] for command in client.commands] == ["EVALSHA", "EVAL", "HMGET"]


@pytest.mark.parametrize("answer", [[], [None] * 6, [b"u", b"1", b"1", b"2", b"{}", b"0"]])
def test_an_answer_of_another_length_is_no_session(answer: Sequence[bytes | None]) -> None:
    with over(Noting([[b"1700000000", b"0"], answer])) as store:
        assert store.load("k") is None


def test_a_ping_says_whether_the_server_answers() -> None:
    async def both(store: RedisSessionStore) -> tuple[bool, bool]:
        return store.ping(), await store.aping()

    with over(fakeredis.FakeRedis()) as store:
        assert asyncio.run(both(store)) == (True, True)
    with over(Noting(*[redis.exceptions.ConnectionError("away")] * 9)) as store:
        assert asyncio.run(both(store)) == (False, False)


@pytest.mark.parametrize(
    ("option", "value"), [("store_budget", 0), ("store_budget", "soon"), ("namespace", "a{b")]
)
def test_options_are_checked(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        over(fakeredis.FakeRedis(), **{option: value})
    assert caught.value.parameter == option


def test_plain_text_to_another_machine_has_to_be_allowed() -> None:
    with pytest.raises(ConfigurationError):
        RedisSessionStore("redis://cache.example.com")
    RedisSessionStore("redis://cache.example.com", allow_plaintext=True).close()


def test_the_clock_is_the_servers_unless_one_is_given() -> None:
    machine = FrozenClock(5.0)
    assert over(fakeredis.FakeRedis(), clock=machine).clock is machine
    with over(Noting([[b"1700000000", b"500000"], []])) as store:
        assert isinstance(store.clock, ServerClock)
        store.settle()
        assert store.clock.is_set
        assert store.clock.time() == pytest.approx(1_700_000_000.5, abs=30)


def test_the_server_is_asked_once_a_minute() -> None:
    machine = FrozenClock(1000.0)
    clock = ServerClock(machine)
    assert (clock.is_set, clock.is_due(), clock.time()) == (False, True, 1000.0)
    clock.learn([b"1700000000", b"250000"])
    assert (clock.is_set, clock.is_due(), clock.time()) == (True, False, 1_700_000_000.25)
    machine.advance(59.75)
    assert (clock.is_due(), clock.time()) == (False, 1_700_000_060.0)
    machine.advance(0.25)
    assert clock.is_due()
