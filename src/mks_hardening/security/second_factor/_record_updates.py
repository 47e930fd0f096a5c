"""Changes of records: load, decide, and replace with a compare-and-set, with retries after a conflict.

A result is returned only after it was stored. So each code works once, and parallel guesses cannot exceed the
failure budget, with any store that has a compare-and-set.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security.second_factor._factor_record import (
    EMPTY,
    FactorRecord,
    RecordTime,
    decode_record,
    encode_record,
    shift_times,
)

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, StoredFactor, TwoFactorStore

__all__ = ["RecordUpdates"]

R = TypeVar("R")

# In each round another caller succeeds, so this many rounds mean an attack or a broken store, not bad luck.
_MOST_CONFLICTS: Final = 64
_LONGEST_USER_ID: Final = 255
_SKEW: Final = 60.0
"""Seconds by which the clocks of hosts may differ; a record further ahead was written by a wrong clock."""


class RecordUpdates:
    """Records of one store, on one clock."""

    __slots__ = ("_clock", "_store")

    def __init__(self, store: TwoFactorStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def change(
        self, user_id: str, decide: Callable[[FactorRecord, RecordTime], tuple[FactorRecord, R]]
    ) -> Op[R]:
        """Apply ``decide`` to the current record until the outcome is stored; return its result."""
        for _ in range(_MOST_CONFLICTS):
            stored = yield from self._load(user_id)
            before = _record_of(stored)
            present, moment = _now(before, self._clock.time())
            after, result = decide(present, moment)
            # No write without a change: a malformed guess must not cause a conflict with the owner's sign-in.
            if after == before:
                return result
            # An empty record is deleted, so that the table does not reveal who once had a second factor.
            nothing_left = after._replace(touched=0.0) == EMPTY
            data = None if nothing_left else encode_record(after._replace(touched=moment.latest))
            if (yield from self._replace(user_id, data, stored)):
                return result
        raise _contended("replace")

    def read(self, user_id: str) -> Op[tuple[FactorRecord, float]]:
        """Return the record, and the time to judge it by."""
        record = _record_of((yield from self._load(user_id)))
        present, moment = _now(record, self._clock.time())
        if present is record:
            return record, moment.latest
        # Shifted times only make progress once they are stored.
        return (yield from self.change(user_id, lambda record, moment: (record, (record, moment.latest))))

    def remove(self, user_id: str) -> Op[bool]:
        """Remove a record without reading it, because it may be damaged; return whether there was one."""
        for _ in range(_MOST_CONFLICTS):
            stored = yield from self._load(user_id)
            if stored is None or (yield from self._replace(user_id, None, stored)):
                return stored is not None
        raise _contended("remove")

    def page(self, cursor: str | None, *, limit: int) -> Op[tuple[list[str], str | None]]:
        """Return some user ids, and the cursor of the next page."""
        return call_store(self._store.scan, cursor, limit=limit)

    def _load(self, user_id: str) -> Op[StoredFactor | None]:
        _check_user_id(user_id)
        return call_store(self._store.load, user_id)

    def _replace(self, user_id: str, data: bytes | None, stored: StoredFactor | None) -> Op[bool]:
        # The version is random, not a counter: a record that is deleted and created again never has an old
        # version (no ABA problem).
        expected = None if stored is None else stored.version
        return call_store(self._store.replace, user_id, data, expected=expected, version=secrets.token_hex(8))


def _record_of(stored: StoredFactor | None) -> FactorRecord:
    return EMPTY if stored is None else decode_record(stored.data)


def _now(record: FactorRecord, wall: float) -> tuple[FactorRecord, RecordTime]:
    """Return the record as of now, and the current time.

    Time never runs backwards for a record, because that would revive expired data. But if the clock that wrote
    the record was wrong by more than the tolerated skew, the record's times are shifted to the current clock.
    """
    if record.touched - wall > _SKEW:
        record = shift_times(record, wall - record.touched)
    return record, RecordTime(wall, max(wall, record.touched))


def _check_user_id(user_id: object) -> None:
    """Check that every store can keep the id: no NUL for PostgreSQL, no lone surrogates for UTF-8."""
    usable = (
        isinstance(user_id, str)
        and bool(user_id.strip())
        and len(user_id) <= _LONGEST_USER_ID
        and not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in user_id)
    )
    if not usable:
        raise ConfigurationError(
            f"user_id must be a string of 1 to {_LONGEST_USER_ID} characters, not blank, without NUL",
            parameter="user_id",
        )


def _contended(operation: str) -> BackendUnavailableError:
    return BackendUnavailableError("two-factor store", "busy", operation=operation)
