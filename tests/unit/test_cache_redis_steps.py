"""The Redis store step by step, without Redis: operations are generators whose answers a test can give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mks_hardening.cache import RedisCache
from mks_hardening.cache.backends.redis_backend import RedisStore
from mks_hardening.cache.effects import Pause, Pipeline, RunScript
from mks_hardening.cache.entry import Entry, Lease
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(clock: FrozenClock) -> Iterator[RedisStore]:
    with RedisCache("redis://127.0.0.1:1/0", clock=clock) as cache:
        made: Any = cache.store
        yield made


def _stored(store: RedisStore, clock: FrozenClock, *, fresh: float = 60) -> bytes:
    now = clock.time()
    return store._envelope.seal("k", Entry("value", now + fresh, now + 60, {}))


def _commands(effect: Any) -> list[str]:
    assert isinstance(effect, Pipeline)
    return [command[0] for command in effect._commands]


def test_a_free_lease_is_taken_with_one_look(store: RedisStore) -> None:
    operation = store.acquire("k", (), wait=True)
    effect: Any = next(operation)
    assert (_commands(effect), effect._patient) == (["SET", "GET"], False)
    with pytest.raises(StopIteration) as stopped:
        operation.send([b"OK", None])
    assert isinstance(stopped.value.value, Lease)


def test_who_gets_the_lease_late_finds_the_value_and_gives_it_back(
    store: RedisStore, clock: FrozenClock
) -> None:
    operation = store.acquire("k", (), wait=True)
    next(operation)
    assert isinstance(operation.send([b"OK", _stored(store, clock)]), RunScript)
    with pytest.raises(StopIteration) as stopped:
        operation.send(1)
    assert stopped.value.value.value == "value"


def test_waiting_is_patient_and_ends_with_the_value(store: RedisStore, clock: FrozenClock) -> None:
    operation = store.acquire("k", (), wait=True)
    next(operation)
    for _ in range(5):
        assert isinstance(operation.send([None, None]), Pause)
        effect: Any = operation.send(None)
        assert effect._patient
    with pytest.raises(StopIteration) as stopped:
        operation.send([None, _stored(store, clock)])
    assert stopped.value.value.value == "value"


def test_nobody_waits_longer_than_a_lease_lives(store: RedisStore, clock: FrozenClock) -> None:
    operation = store.acquire("k", (), wait=True)
    next(operation)
    operation.send([None, None])
    clock.advance(31)
    operation.send(None)
    with pytest.raises(StopIteration) as stopped:
        operation.send([None, None])
    assert isinstance(stopped.value.value, Lease)


def test_without_waiting_another_holder_is_an_answer(store: RedisStore) -> None:
    operation = store.acquire("k", (), wait=False)
    next(operation)
    with pytest.raises(StopIteration) as stopped:
        operation.send([None, None])
    assert stopped.value.value is None


def test_a_stale_value_is_not_what_the_holder_stored(store: RedisStore, clock: FrozenClock) -> None:
    operation = store.acquire("k", (), wait=True)
    next(operation)
    with pytest.raises(StopIteration) as stopped:
        operation.send([b"OK", _stored(store, clock, fresh=0)])
    assert isinstance(stopped.value.value, Lease)


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
    assert [command[1] for command in effect._commands] == ["mks:l:k", "mks:v:k"]
