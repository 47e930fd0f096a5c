"""The contract suite notices every kind of store that does not keep the contract."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest

from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import SessionStoreContract
from mks_hardening.wsgi import MemorySessionStore


class ActivityMovesBack(MemorySessionStore):
    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        touched = super().touch(key, seen_at=seen_at, expires_at=expires_at)
        if touched:
            self._records[key] = self._records[key]._replace(seen_at=seen_at, expires_at=expires_at)
        return touched


class TouchRevives(MemorySessionStore):
    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        record = self._records.get(key)
        if record is not None:
            self._records[key] = record._replace(ended="")
        return super().touch(key, seen_at=seen_at, expires_at=expires_at)


class CreateOverwrites(MemorySessionStore):
    def create(self, record: SessionRecord, /, **options: Any) -> list[str]:
        self._records.pop(record.key, None)
        return super().create(record, **options)


class NoLimit(MemorySessionStore):
    def create(self, record: SessionRecord, /, **options: Any) -> list[str]:
        return super().create(record, **{**options, "max_sessions": None})


class NothingReplaced(MemorySessionStore):
    def create(self, record: SessionRecord, /, **options: Any) -> list[str]:
        return super().create(record, **{**options, "replaces": None})


class OldIdLives(MemorySessionStore):
    def rotate(self, key: str, new_key: str, /, **options: Any) -> SessionRecord | None:
        before = self._records.get(key)
        moved = super().rotate(key, new_key, **options)
        if before is not None:
            self._records[key] = before
        return moved


class RotationForgetsData(MemorySessionStore):
    def rotate(self, key: str, new_key: str, /, **options: Any) -> SessionRecord | None:
        moved = super().rotate(key, new_key, **options)
        if moved is not None:
            moved = self._records[new_key] = moved._replace(data="{}")
        return moved


class NobodyKnowsOfTheRotation(MemorySessionStore):
    def rotate(self, key: str, new_key: str, /, **options: Any) -> SessionRecord | None:
        moved = super().rotate(key, new_key, **options)
        if moved is not None:
            self._records[key] = self._records[key]._replace(ended="revoked")
        return moved


class LastWriterWins(MemorySessionStore):
    def update(self, key: str, /, *, version: int, data: str) -> bool:
        record = self._records.get(key)
        return super().update(key, version=record.version if record else version, data=data)


class SecondReasonWins(MemorySessionStore):
    def end(self, key: str, /, *, reason: str) -> bool:
        record = self._records.get(key)
        if record is not None and record.ended:
            self._records[key] = record._replace(ended=reason)
        return super().end(key, reason=reason)


class DataStays(MemorySessionStore):
    def end(self, key: str, /, *, reason: str) -> bool:
        record = self._records.get(key)
        ended = super().end(key, reason=reason)
        if ended and record is not None:
            self._records[key] = self._records[key]._replace(data=record.data)
        return ended


class NobodyIsKept(MemorySessionStore):
    def end_user(self, user_id: str, /, **options: Any) -> int:
        return super().end_user(user_id, **{**options, "keep": None})


class ExpiredAreListed(MemorySessionStore):
    def sessions(self, user_id: str, /, *, now: float) -> Sequence[SessionRecord]:  # type: ignore[override]
        return super().sessions(user_id, now=0.0)


class NewestFirst(MemorySessionStore):
    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        return super().sessions(user_id, now=now)[::-1]


class EveryEndCounts(MemorySessionStore):
    def end(self, key: str, /, *, reason: str) -> bool:
        super().end(key, reason=reason)
        return True


class Away(MemorySessionStore):
    def ping(self) -> bool:
        return False


BROKEN = [
    *(ActivityMovesBack, TouchRevives, CreateOverwrites, NoLimit, NothingReplaced, OldIdLives),
    *(
        RotationForgetsData,
        NobodyKnowsOfTheRotation,
        LastWriterWins,
        SecondReasonWins,
        DataStays,
        NobodyIsKept,
    ),
    *(ExpiredAreListed, NewestFirst, EveryEndCounts, Away),
]


def broken_rules(kind: type[MemorySessionStore]) -> list[str]:
    class Contract(SessionStoreContract):
        def make_store(self) -> MemorySessionStore:
            return kind()

    names = []
    for name, rule in inspect.getmembers(Contract(), callable):
        if name.startswith("test_") and "threads" not in name:
            try:
                rule()
            except AssertionError:
                names.append(name)
    return names


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_store_is_noticed(kind: type[MemorySessionStore]) -> None:
    assert broken_rules(kind)


def test_a_store_that_keeps_the_contract_passes() -> None:
    assert broken_rules(MemorySessionStore) == []


def test_the_suite_asks_for_a_store() -> None:
    with pytest.raises(NotImplementedError):
        SessionStoreContract().make_store()
