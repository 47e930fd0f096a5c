from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._edge.session.session_ids import key_of
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import SessionStoreContract
from mks_hardening.wsgi import RedisSessionStore
from on_loop import OnLoop
from testbed.redis_server import RedisServer
from wsgi_session_corpus import faults_of, load_cases
from wsgi_session_machine import machine_of

pytestmark = pytest.mark.redis
NOW = 1_700_000_000.0


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisSessionStore]:
    with RedisSessionStore(redis_url, store_budget=30.0) as store:
        yield store


class TestContract(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> Iterator[None]:
        self._url = redis_url
        self._made: list[RedisSessionStore] = []
        yield
        for store in self._made:
            store.close()

    def make_store(self) -> RedisSessionStore:
        self._made.append(RedisSessionStore(self._url, store_budget=30.0))
        return self._made[-1]


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case["name"])
def test_the_corpus_over_redis(case: dict[str, Any], store: RedisSessionStore) -> None:
    assert faults_of(case, store) == []


def record(key: str, *, user: str = "u", life: float = 100.0) -> SessionRecord:
    return SessionRecord(key, user, NOW, NOW, NOW + life)


def test_neither_ids_nor_names_are_in_the_keys(store: RedisSessionStore, redis_url: str) -> None:
    store.create(record(key_of("the-id"), user="alice"), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys("*")
    assert len(keys) == 2
    assert all(key.startswith(b"{mks:sessions}:") for key in keys)
    assert not any(b"the-id" in key or b"alice" in key for key in keys)


def test_the_server_forgets_by_its_own_clock(store: RedisSessionStore, redis_url: str) -> None:
    store.create(record("k", life=100), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        lives = {key: client.pttl(key) / 1000 for key in client.keys("*")}
        assert all(390 < life <= 400 for life in lives.values())
        store.touch("k", seen_at=NOW + 50, expires_at=NOW + 1050)
        assert all(1290 < client.pttl(key) / 1000 <= 1300 for key in lives)
        store.rotate("k", "n", now=NOW)
        store.end("n", reason="revoked")
        assert all(client.pttl(key) > 0 for key in client.keys("*"))


def test_a_user_without_sessions_leaves_no_index(store: RedisSessionStore, redis_url: str) -> None:
    store.create(record("k"), now=NOW)
    store.end("k", reason="revoked")
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*:u:*") == []


def test_sessions_the_server_forgot_do_not_count(store: RedisSessionStore, redis_url: str) -> None:
    for key in ("a", "b", "c"):
        store.create(record(key), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        client.delete("{mks:sessions}:s:a")
    assert [one.key for one in store.sessions("u", now=NOW)] == ["b", "c"]
    assert list(store.create(record("d"), now=NOW, max_sessions=3)) == []


@pytest.mark.parametrize(
    ("field", "value"), [("c", b"x"), ("t", b""), ("u", b"\xff"), ("d", b"\xff"), ("v", b"x")]
)
def test_a_record_that_is_damaged_is_no_session(
    store: RedisSessionStore, redis_url: str, field: str, value: bytes
) -> None:
    store.create(record("k"), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{mks:sessions}:s:k", field, value)
    assert store.load("k") is None
    assert store.sessions("u", now=NOW) == []


def test_a_key_of_another_type_is_no_session(store: RedisSessionStore, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("{mks:sessions}:s:k", "planted")
        assert store.load("k") is None
        assert client.exists("{mks:sessions}:s:k") == 0


def test_namespaces_are_apart(redis_url: str) -> None:
    with RedisSessionStore(redis_url, namespace="a") as a, RedisSessionStore(redis_url, namespace="b") as b:
        a.create(record("k"), now=NOW)
        assert b.load("k") is None
        assert b.end_user("u", now=NOW) == 0
        assert a.load("k") is not None


def test_a_client_handed_in_is_used_and_stays_open(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        store = RedisSessionStore(client)
        store.create(record("k"), now=NOW)
        store.close()
        assert client.ping()
    shared = RedisClient(redis_url)
    store = RedisSessionStore(shared)
    assert store.load("k") == record("k")
    store.close()
    assert shared.ping()
    shared.close()


def test_scripts_that_the_server_forgot_are_sent_again(
    store: RedisSessionStore, redis_server: RedisServer
) -> None:
    store.create(record("k"), now=NOW)
    with redis.Redis.from_url(redis_server.url) as client:
        client.script_flush()
    assert store.end("k", reason="idle")


@pytest.mark.parametrize("namespace", ["", "a{b", "}", 5])
def test_the_namespace_is_checked(namespace: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisSessionStore("redis://127.0.0.1:1/0", namespace=namespace)
    assert caught.value.parameter == "namespace"


def test_repr_tells_no_password() -> None:
    assert "hunter2" not in repr(RedisSessionStore("redis://:hunter2@127.0.0.1:1/0"))


def test_random_histories_agree_with_a_model(redis_server: RedisServer) -> None:
    clients: list[RedisSessionStore] = []

    def make_store() -> RedisSessionStore:
        with redis.Redis.from_url(redis_server.url) as client:
            client.flushall()
        clients.append(RedisSessionStore(redis_server.url, store_budget=30.0))
        return clients[-1]

    run_state_machine_as_test(
        machine_of(make_store), settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )


# --- what is damaged is made anew


@pytest.mark.parametrize("damage", ["another type", "a stranger in it", "a session of another type", "gone"])
def test_a_damaged_index_repairs_itself(store: RedisSessionStore, redis_url: str, damage: str) -> None:
    store.create(record("old"), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        (index,) = client.keys("*:u:*")
        if damage in ("another type", "gone"):
            client.delete(index)
        if damage == "another type":
            client.set(index, "planted")
        elif damage == "a stranger in it":
            client.zadd(index, {"stranger": 0})
        elif damage == "a session of another type":
            client.zadd(index, {"stranger": 0})
            client.set(index.decode().partition("u:")[0] + "s:stranger", "planted")
    assert list(store.create(record("new"), now=NOW, max_sessions=5)) == []
    assert store.touch("old", seen_at=NOW + 1, expires_at=NOW + 101)
    assert {one.key for one in store.sessions("u", now=NOW)} == {"old", "new"}
    assert store.end_user("u", now=NOW, keep="new") == 1
    assert [one.key for one in store.sessions("u", now=NOW)] == ["new"]
    assert store.rotate("new", "newer", now=NOW) is not None
    assert store.end("newer", reason="revoked")


@pytest.mark.parametrize("field", ["i", "c", "t", "x", "v"])
def test_a_damaged_record_locks_nobody_out(store: RedisSessionStore, redis_url: str, field: str) -> None:
    store.create(record("k"), now=NOW)
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{mks:sessions}:s:k", field, "damaged")
    store.touch("k", seen_at=NOW + 1, expires_at=NOW + 101)
    store.update("k", version=0, data="{}")
    store.sessions("u", now=NOW)
    assert list(store.create(record("new"), now=NOW, replaces="k", max_sessions=1)) == []
    assert [one.key for one in store.sessions("u", now=NOW)] == ["new"]


# --- on an event loop, and with what may be handed in


class TestTwins(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> Iterator[None]:
        self._url = redis_url
        self._made: list[OnLoop] = []
        yield
        for store in self._made:
            store.close()

    def make_store(self) -> Any:
        self._made.append(OnLoop(RedisSessionStore(self._url, store_budget=30.0)))
        return self._made[-1]


def test_twins_take_the_same_arguments() -> None:
    names = ("load", "create", "rotate", "touch", "update", "end", "end_user", "sessions", "ping")
    for name in names:
        plain, twin = getattr(RedisSessionStore, name), getattr(RedisSessionStore, "a" + name)
        assert inspect.signature(plain) == inspect.signature(twin), name


def test_a_client_of_redis_py_is_held_to_the_budget(redis_server: RedisServer) -> None:
    with (
        redis.Redis.from_url(redis_server.url) as client,
        RedisSessionStore(client, store_budget=0.2) as store,
    ):
        store.create(record("k"), now=NOW)
        redis_server.pause()
        try:
            with pytest.raises(BackendUnavailableError):
                store.load("k")
        finally:
            redis_server.resume()
