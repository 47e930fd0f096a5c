from __future__ import annotations

import pytest

from mks_hardening._edge.session.stores.memory_store import RETENTION
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import SessionStoreContract
from mks_hardening.wsgi import MemorySessionStore


class TestContract(SessionStoreContract):
    def make_store(self) -> MemorySessionStore:
        return MemorySessionStore()


def record(key: str, *, user: str = "u", at: float = 0.0, life: float = 100.0) -> SessionRecord:
    return SessionRecord(key, user, at, at, at + life)


def test_living_sessions_are_never_evicted() -> None:
    store = MemorySessionStore(max_entries=2)
    store.create(record("a"), now=0)
    store.create(record("b"), now=0)
    with pytest.raises(BackendUnavailableError) as caught:
        store.create(record("c"), now=0)
    assert caught.value.reason == "oom"
    assert store.load("c") is None
    assert store.load("a") is not None


def test_a_full_store_forgets_what_ran_out() -> None:
    store = MemorySessionStore(max_entries=2)
    store.create(record("a"), now=0)
    store.create(record("b", life=10_000), now=0)
    store.create(record("c", at=100 + RETENTION), now=100 + RETENTION)
    assert store.load("a") is None
    assert store.load("b") is not None
    assert [one.key for one in store.sessions("u", now=100 + RETENTION)] == ["b", "c"]


def test_expired_sessions_are_remembered_for_their_reason_and_then_forgotten() -> None:
    store = MemorySessionStore()
    store.create(record("a"), now=0)
    store.create(record("b", at=99 + RETENTION), now=99 + RETENTION)
    assert store.load("a") is not None
    store.create(record("c", at=200 + RETENTION), now=200 + RETENTION)
    assert store.load("a") is None


def test_rotations_do_not_pile_up() -> None:
    store = MemorySessionStore()
    store.create(record("k0", life=50), now=0)
    for number in range(100):
        at = number * 70.0
        store.touch(f"k{number}", seen_at=at, expires_at=at + 100)
        assert store.rotate(f"k{number}", f"k{number + 1}", now=at) is not None
    assert len(store._records) < 20


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "9"])
def test_max_entries_is_checked(wrong: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MemorySessionStore(max_entries=wrong)  # type: ignore[arg-type]
    assert caught.value.parameter == "max_entries"


def test_repr_tells_numbers_only() -> None:
    store = MemorySessionStore()
    store.create(record("k", user="alice"), now=0)
    assert repr(store) == "MemorySessionStore(1 of 100000)"


def test_one_entry_is_allowed() -> None:
    store = MemorySessionStore(max_entries=1)
    store.create(record("a"), now=0)
    assert store.load("a") == record("a")


def test_a_user_without_sessions_leaves_no_index() -> None:
    store = MemorySessionStore()
    store.create(record("a"), now=0)
    store.create(record("b"), now=0)
    store.end("a", reason="revoked")
    assert store._by_user == {"u": {"b"}}
    store.end("b", reason="revoked")
    assert store._by_user == {}
