"""Slots in Redis without a server: what stands there, what is sent again, and what a limiter hands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
import redis

from losing_redis import LosingRedis
from mks_hardening._core.operations import run
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.security.concurrency._redis_slots import RedisSlots
from mks_hardening.testing import FrozenClock

LEASE = 10_000.0  # so long that no machine is too slow for what is measured in it
PLACE = "{g:u}"


@pytest.fixture
def server() -> LosingRedis:
    return LosingRedis()


@pytest.fixture
def slots(server: LosingRedis) -> Iterator[RedisSlots]:
    made = RedisSlots(
        server, lease=LEASE, namespace="ns", store_budget=30, allow_plaintext=False, clock=FrozenClock()
    )
    yield made
    made.close()


def left_ms(server: Any, key: str, token: str) -> float:
    seconds, micros = server.time()
    return float(server.zscore(key, token) - seconds * 1000 - micros / 1000)


def test_a_slot_is_a_token_with_the_end_of_its_lease(slots: RedisSlots, server: LosingRedis) -> None:
    assert run(slots.acquire(PLACE, "one", quota=2)) == (True, 1, 0.0)
    assert run(slots.acquire(PLACE, "two", quota=2)) == (True, 2, 0.0)
    assert run(slots.acquire(PLACE, "two", quota=2)) == (True, 2, 0.0)
    (key,) = server.keys("*")
    assert key == b"ns:slots:{g:u}"
    assert LEASE * 1000 - 5000 < left_ms(server, key, "one") <= LEASE * 1000
    assert 2 * LEASE - 5 < server.pttl(key) / 1000 <= 2 * LEASE
    got, held, wait = run(slots.acquire(PLACE, "three", quota=2))
    assert (got, held) == (False, 2)
    assert LEASE - 5 < wait <= LEASE


def test_a_renewal_says_which_were_held_and_takes_the_others_anew(
    slots: RedisSlots, server: LosingRedis
) -> None:
    for token in ("one", "two"):
        run(slots.acquire(PLACE, token, quota=2))
    server.zadd("ns:slots:{g:u}", {"one": 1, "two": server.zscore("ns:slots:{g:u}", "two") - 9e6})
    assert run(slots.renew(PLACE, ["one", "two", "three"])) == [False, True, False]
    for token in ("one", "two", "three"):
        assert LEASE * 1000 - 5000 < left_ms(server, "ns:slots:{g:u}", token) <= LEASE * 1000
    run(slots.release(PLACE, "one"))
    assert server.zrange("ns:slots:{g:u}", 0, -1) == [b"three", b"two"]


def test_processes_that_are_there_are_numbered(slots: RedisSlots, server: LosingRedis) -> None:
    workers, number, life, _ = run(slots.announce("b", 30, 0, 0))
    assert (workers, number) == (1, 0)
    assert run(slots.announce("a", 30, 0, 0))[:3] == (2, 0, life)
    assert run(slots.announce("b", 30, 0, 0))[:3] == (2, 1, life)
    assert sorted(server.keys("*")) == [b"ns:slots:{presence}:generation", b"ns:slots:{presence}:workers"]
    server.flushall()
    assert run(slots.announce("b", 30, 0, 0))[2] != life


OPERATIONS: dict[str, Callable[[RedisSlots], Any]] = {
    "acquire": lambda slots: slots.acquire(PLACE, "one", quota=1),
    "renew": lambda slots: slots.renew(PLACE, ["one"]),
    "release": lambda slots: slots.release(PLACE, "one"),
    "announce": lambda slots: slots.announce("one", 30, 0, 0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_may_be_sent_twice_is_sent_again(slots: RedisSlots, server: LosingRedis, name: str) -> None:
    operation = OPERATIONS[name]
    run(operation(slots))  # its script is known from now on
    server.script_flush()
    before = run(operation(slots))
    server.script_flush()
    server.lose = True
    assert run(operation(slots)) == before
    assert not server.lose


def test_a_limiter_hands_its_options_on(server: LosingRedis) -> None:
    with pytest.raises(ConfigurationError, match="clear text"):
        ConcurrencyLimiter({"g": 1}, storage="redis://cache.example.com")
    ConcurrencyLimiter({"g": 1}, storage="redis://cache.example.com", allow_plaintext=True).close()
    limiter = ConcurrencyLimiter(
        {"g": 1}, storage=server, namespace="ns", store_budget=25, lease=LEASE, clock=FrozenClock()
    )
    with limiter.hold("g", "u") as slot:
        assert server.zrange("ns:slots:{g:u}", 0, -1) == [slot.token.encode()]
        assert limiter.held("g", "u") == 1
        assert LEASE * 1000 - 5000 < left_ms(server, "ns:slots:{g:u}", slot.token) <= LEASE * 1000
    assert limiter.held("g", "u") == 0
    assert limiter._shared is not None
    assert limiter._shared._client._lease.budget == 25
    limiter.close()


def test_an_outage_names_what_is_away() -> None:
    class Away(fakeredis.FakeRedis):
        def execute_command(self, *_command: Any, **_options: Any) -> Any:
            raise redis.exceptions.ConnectionError

    made = RedisSlots(
        Away(), lease=1, namespace="ns", store_budget=30, allow_plaintext=False, clock=FrozenClock()
    )
    with pytest.raises(BackendUnavailableError):
        run(made.acquire(PLACE, "one", quota=1))
    assert "slots" in repr(made._client)
    made.close()
