"""One change of a record, as an operation: load, decide, replace only if nobody else did meanwhile.

A result is told only after it was recorded. So one code works once and parallel guesses cannot exceed the failure
budget, on any store with a compare-and-set.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import ask
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security.second_factor._factor_record import (
    EMPTY,
    FactorMoment,
    FactorRecord,
    decode_record,
    encode_record,
    moved,
)

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, StoredFactor, TwoFactorStore

__all__ = ["RecordUpdates"]

R = TypeVar("R")

# Each round somebody else succeeds, so this many mean an attack or a broken store, and not bad luck.
_MOST_CONFLICTS: Final = 64
_LONGEST_USER_ID: Final = 255
_SKEW: Final = 60.0
"""Seconds by which clocks of hosts may differ; a record further ahead was written by a clock that was wrong."""


class RecordUpdates:
    """The records of one store, on one clock."""

    __slots__ = ("_clock", "_store")

    def __init__(self, store: TwoFactorStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def change(
        self, user_id: str, decide: Callable[[FactorRecord, FactorMoment], tuple[FactorRecord, R]]
    ) -> Op[R]:
        """Decide on the present record until the outcome could be recorded, and only then answer."""
        for _ in range(_MOST_CONFLICTS):
            stored = yield from self._load(user_id)
            before = _record_of(stored)
            present, moment = _now(before, self._clock.time())
            after, result = decide(present, moment)
            # No write for what changes nothing: a malformed guess must not make the owner's sign-in lose the
            # race.
            if after == before:
                return result
            # An empty record is deleted: a table that says who once had a second factor is one more thing to
            # leak.
            nothing_left = after._replace(touched=0.0) == EMPTY
            data = None if nothing_left else encode_record(after._replace(touched=moment.latest))
            if (yield from self._replace(user_id, data, stored)):
                return result
        raise _contended("replace")

    def read(self, user_id: str) -> Op[tuple[FactorRecord, float]]:
        """The record, and the time by which it is to be judged."""
        record = _record_of((yield from self._load(user_id)))
        present, moment = _now(record, self._clock.time())
        if present is record:
            return record, moment.latest
        # Moved times run on only once they are stored.
        return (yield from self.change(user_id, lambda record, moment: (record, (record, moment.latest))))

    def remove(self, user_id: str) -> Op[bool]:
        """Remove a record unread, as it may be damaged; whether there was one."""
        for _ in range(_MOST_CONFLICTS):
            stored = yield from self._load(user_id)
            if stored is None or (yield from self._replace(user_id, None, stored)):
                return stored is not None
        raise _contended("remove")

    def page(self, cursor: str | None, *, limit: int) -> Op[tuple[list[str], str | None]]:
        """Some user ids, and where to go on."""
        return ask(self._store.scan, cursor, limit=limit)

    def _load(self, user_id: str) -> Op[StoredFactor | None]:
        _check_user_id(user_id)
        return ask(self._store.load, user_id)

    def _replace(self, user_id: str, data: bytes | None, stored: StoredFactor | None) -> Op[bool]:
        # The version is a random text and no counter: a record that is deleted and made anew never meets an old
        # version again (no ABA).
        expected = None if stored is None else stored.version
        return ask(self._store.replace, user_id, data, expected=expected, version=secrets.token_hex(8))


def _record_of(stored: StoredFactor | None) -> FactorRecord:
    return EMPTY if stored is None else decode_record(stored.data)


def _now(record: FactorRecord, wall: float) -> tuple[FactorRecord, FactorMoment]:
    """The record as it is to be read now.

    Time never runs backwards for a record, or what had expired would come to life. But where the clock that wrote
    it was wrong by more than hosts differ, its times are moved to ours instead of being waited for.
    """
    if record.touched - wall > _SKEW:
        record = moved(record, wall - record.touched)
    return record, FactorMoment(wall, max(wall, record.touched))


def _check_user_id(user_id: object) -> None:
    """What every store can keep as it is: no NUL for PostgreSQL, no lone surrogates for UTF-8."""
    usable = (
        isinstance(user_id, str)
        and bool(user_id.strip())
        and len(user_id) <= _LONGEST_USER_ID
        and not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in user_id)
    )
    if not usable:
        raise ConfigurationError(
            f"user_id must be a text of 1 to {_LONGEST_USER_ID} characters, not blank, without NUL",
            parameter="user_id",
        )


def _contended(operation: str) -> BackendUnavailableError:
    return BackendUnavailableError("two-factor store", "busy", operation=operation)
