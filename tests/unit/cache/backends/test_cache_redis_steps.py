"""The Redis store step by step, without Redis: operations are generators whose answers a test can give."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from mks_hardening._core.backend.redis_operations import Pipeline, RunScript
from mks_hardening._core.operations import Pause
from mks_hardening.cache import RedisCache
from mks_hardening.cache._compute_lease import ComputeLease
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache.backends._redis_store import RedisStore
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import FrozenClock

GENERATION = bytes(8)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(clock: FrozenClock) -> Iterator[RedisStore]:
    with RedisCache("redis://127.0.0.1:1/0", clock=clock) as cache:
        made: Any = cache.store
        made._generation.learn(GENERATION, asked_at=inf)  # known for ever
        yield made


def _stored(store: RedisStore, clock: FrozenClock, *, fresh: float = 60) -> bytes:
    now = clock.time()
    return store._envelope.seal(
        "k", CacheEntry("value", fresh_until=now + fresh, expires_at=now + 60, tags={})
    )


def _commands(effect: Any) -> list[str]:
    assert isinstance(effect, Pipeline)
    return [command[0] for command in effect._commands]


def test_a_free_lease_is_taken_with_one_look(store: RedisStore) -> None:
    operation = store.acquire("k", (), wait=3)
    effect: Any = next(operation)
    assert (type(effect), effect._patient, effect._idempotent) == (RunScript, False, True)
    assert effect._keys == [b"mks:l:{=k}", b"mks:v:{=k}", b"mks:w:{=k}"]
    with pytest.raises(StopIteration) as stopped:
        operation.send([1, None])
    assert isinstance(stopped.value.value, ComputeLease)


def test_who_gets_the_lease_late_finds_the_value_and_gives_it_back(
    store: RedisStore, clock: FrozenClock
) -> None:
    operation = store.acquire("k", (), wait=3)
    next(operation)
    assert isinstance(operation.send([1, _stored(store, clock)]), RunScript)
    with pytest.raises(StopIteration) as stopped:
        operation.send(1)
    assert stopped.value.value.value == "value"


def test_waiting_is_patient_and_ends_with_the_value(store: RedisStore, clock: FrozenClock) -> None:
    operation = store.acquire("k", (), wait=3)
    next(operation)
    for woken in (b"1", b"1", None, None):
        effect: Any = operation.send([0, None])
        if isinstance(effect, Pause):  # in turn, so that an old wake-up does not make it spin
            effect = operation.send(None)
        else:
            assert _commands(effect) == ["BLMOVE"]
            assert effect._patient
            effect = operation.send([woken])
        assert isinstance(effect, RunScript)
        assert effect._patient
    with pytest.raises(StopIteration) as stopped:
        operation.send([0, _stored(store, clock)])
    assert stopped.value.value.value == "value"


@pytest.mark.parametrize(
    "error", [BackendUnavailableError("cache", "denied"), ValueError("unknown command 'BLMOVE'")]
)
def test_a_server_without_blocking_commands_is_polled(store: RedisStore, error: Exception) -> None:
    operation = store.acquire("k", (), wait=3)
    next(operation)
    assert _commands(operation.send([0, None])) == ["BLMOVE"]
    assert isinstance(operation.throw(error), Pause)
    for _ in range(3):
        assert isinstance(operation.send(None), RunScript)
        assert isinstance(operation.send([0, None]), Pause)
    another = store.acquire("other", (), wait=3)
    next(another)
    assert isinstance(another.send([0, None]), Pause)


def test_an_outage_ends_the_wait(store: RedisStore) -> None:
    operation = store.acquire("k", (), wait=3)
    next(operation)
    operation.send([0, None])
    with pytest.raises(BackendUnavailableError):
        operation.throw(BackendUnavailableError("cache", "refused"))


def test_few_connections_wait_at_a_time(store: RedisStore) -> None:
    waiting = []
    for number in range(20):
        operation = store.acquire(f"k{number}", (), wait=3)
        next(operation)
        waiting.append((operation, operation.send([0, None])))
    kinds = [type(effect) for _operation, effect in waiting]
    assert kinds == [Pipeline] * 16 + [Pause] * 4
    waiting[0][0].close()  # a cancelled caller leaves its place to another
    operation = store.acquire("next", (), wait=3)
    next(operation)
    assert isinstance(operation.send([0, None]), Pipeline)


def test_nobody_waits_longer_than_they_want(store: RedisStore, clock: FrozenClock) -> None:
    operation = store.acquire("k", (), wait=3)
    next(operation)
    operation.send([0, None])
    clock.advance(3)
    operation.send(None)
    with pytest.raises(StopIteration) as stopped:
        operation.send([0, None])
    assert stopped.value.value is None


def test_without_waiting_another_holder_is_an_answer(store: RedisStore) -> None:
    operation = store.acquire("k", ())
    next(operation)
    with pytest.raises(StopIteration) as stopped:
        operation.send([0, None])
    assert stopped.value.value is None


def test_a_stale_value_is_not_what_the_holder_stored(store: RedisStore, clock: FrozenClock) -> None:
    operation = store.acquire("k", (), wait=3)
    next(operation)
    with pytest.raises(StopIteration) as stopped:
        operation.send([1, _stored(store, clock, fresh=0)])
    assert isinstance(stopped.value.value, ComputeLease)


@pytest.mark.parametrize(
    ("keys", "tags", "commands"),
    [(["k"], [], ["GET"]), (["k"], ["t"], ["MGET"]), (["k", "l"], [], ["MGET"])],
)
def test_a_read_is_one_command(
    store: RedisStore, keys: list[str], tags: list[str], commands: list[str]
) -> None:
    operation = store.load(keys, tags)
    assert _commands(next(operation)) == commands
    nothing: list[None] = [None] * (len(keys) + len(tags))
    with pytest.raises(StopIteration) as stopped:
        operation.send([None] if commands == ["GET"] else [nothing])
    assert stopped.value.value == [None] * len(keys)


def test_leases_are_removed_before_values(store: RedisStore) -> None:
    effect: Any = next(store.remove(["k"]))
    assert [command[1] for command in effect._commands] == [b"mks:l:{=k}", b"mks:v:{=k}"]


@pytest.mark.parametrize("how", ["told", "written anew"])
def test_what_was_read_before_an_invalidation_ceased_to_be_owed_is_read_again(
    store: RedisStore, clock: FrozenClock, how: str
) -> None:
    old = _stored(store, clock)
    failing = store.remove(["k"])
    next(failing)
    with pytest.raises(BackendUnavailableError):
        failing.throw(BackendUnavailableError("redis", reason="refused"))

    reading = store.load(["k"])
    next(reading)
    pending = store._pending
    if how == "told":
        pending.mark_flushed(pending.snapshot())
    else:
        pending.supersede([("key", "k")])
    assert isinstance(reading.send([old]), Pipeline)
    with pytest.raises(StopIteration) as stopped:
        reading.send([None])
    assert stopped.value.value == [None]
