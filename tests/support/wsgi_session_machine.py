"""Random histories of a session store, compared with a model of plain dictionaries."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mks_hardening.protocols import SessionRecord, SessionStore

NOW = 1_700_000_000.0
LIFE = 100.0
USERS = ("alice", "ボブ")
DATA = st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2).map(json.dumps)


class StoreMachine(RuleBasedStateMachine):
    """Runs every operation on a store and on the model; all results and records must be equal."""

    keys: Bundle[str] = Bundle("keys")

    def make_store(self) -> SessionStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.model: dict[str, SessionRecord] = {}
        self.now = NOW
        self.made = 0

    def teardown(self) -> None:
        self.store.close()

    # --- the model ---

    def living(self, user: str) -> list[SessionRecord]:
        records = [
            record
            for record in self.model.values()
            if record.user_id == user and not record.ended and record.expires_at > self.now
        ]
        return sorted(records, key=lambda record: (record.created_at, record.key))

    def bury(self, key: str, reason: str) -> bool:
        record = self.model.get(key)
        if record is None or record.ended:
            return False
        self.model[key] = record._replace(ended=reason, data="{}")
        return True

    def succeed(self, key: str, reason: str) -> None:
        record = self.model.get(key)
        if record is not None and not record.ended:
            data = record.data if reason == "rotated" else "{}"
            self.model[key] = record._replace(ended=reason, data=data, seen_at=self.now, expires_at=self.now)

    def new_key(self) -> str:
        self.made += 1
        return f"key{self.made:04d}"

    # --- the rules ---

    @rule(target=keys, user=st.sampled_from(USERS), data=DATA, most=st.none() | st.integers(1, 3))
    def create(self, user: str, data: str, most: int | None) -> str:
        return self._create(user, data, most, None)

    @rule(target=keys, user=st.sampled_from(USERS), old=keys, most=st.none() | st.integers(1, 3))
    def sign_in_again(self, user: str, old: str, most: int | None) -> str:
        return self._create(user, "{}", most, old)

    def _create(self, user: str, data: str, most: int | None, replaces: str | None) -> str:
        key = self.new_key()
        record = SessionRecord(key, user, self.now, self.now, self.now + LIFE, data)
        ended = self.store.create(record, now=self.now, replaces=replaces, max_sessions=most)
        self.model[key] = record
        if replaces is not None:
            self.succeed(replaces, "replaced")
        excess = [] if most is None else self.living(user)[: max(0, len(self.living(user)) - most)]
        for old in excess:
            self.bury(old.key, "revoked")
        assert list(ended) == [old.key for old in excess]
        return key

    @rule(key=keys)
    def create_repeated(self, key: str) -> None:
        record = self.model[key]
        assert list(self.store.create(record._replace(ended="", data='{"x":1}'), now=self.now)) == []

    @rule(target=keys, key=keys, data=st.none() | DATA)
    def rotate(self, key: str, data: str | None) -> str:
        new = self.new_key()
        moved = self.store.rotate(key, new, now=self.now, data=data)
        record = self.model[key]
        if record.ended:
            assert moved is None
            return key
        self.succeed(key, "rotated")
        record = record._replace(key=new)
        if data is not None:
            record = record._replace(data=data, version=record.version + 1)
        self.model[new] = record
        assert moved == record
        assert self.store.rotate(key, new, now=self.now, data=data) == record
        return new

    @rule(key=keys, late=st.floats(0, 50, allow_nan=False))
    def touch(self, key: str, late: float) -> None:
        seen = self.now - late
        touched = self.store.touch(key, seen_at=seen, expires_at=seen + LIFE)
        record = self.model[key]
        assert touched == (not record.ended)
        if touched:
            self.model[key] = record._replace(
                seen_at=max(seen, record.seen_at), expires_at=max(seen + LIFE, record.expires_at)
            )

    @rule(key=keys, off=st.sampled_from([0, 0, 0, 1, -2]), data=DATA)
    def update(self, key: str, off: int, data: str) -> None:
        record = self.model[key]
        updated = self.store.update(key, version=record.version + off, data=data)
        assert updated == (not record.ended and off == 0)
        if updated:
            self.model[key] = record._replace(data=data, version=record.version + 1)

    @rule(key=keys, reason=st.sampled_from(["idle", "absolute", "revoked"]))
    def end(self, key: str, reason: str) -> None:
        assert self.store.end(key, reason=reason) == self.bury(key, reason)

    @rule(user=st.sampled_from(USERS), keep=st.none() | keys)
    def end_user(self, user: str, keep: str | None) -> None:
        ended = [old.key for old in self.living(user) if old.key != keep]
        assert self.store.end_user(user, now=self.now, keep=keep) == len(ended)
        for key, record in list(self.model.items()):
            if record.user_id == user and key != keep:
                self.bury(key, "revoked")

    @rule(seconds=st.floats(0.001, 40, allow_nan=False))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def records_agree(self) -> None:
        for key, record in self.model.items():
            found = self.store.load(key)
            # A store may forget what ran out; what lives it must know.
            assert found == record or (found is None and record.expires_at <= self.now)

    @invariant()
    def lists_agree(self) -> None:
        for user in USERS:
            assert list(self.store.sessions(user, now=self.now)) == self.living(user)


def machine_of(make_store: Callable[[], SessionStore]) -> type[StoreMachine]:
    """Return the state machine for one kind of store."""
    return type("Machine", (StoreMachine,), {"make_store": lambda _: make_store()})
