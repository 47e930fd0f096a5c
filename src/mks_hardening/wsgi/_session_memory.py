"""Sessions in this process: for development, tests and single-process services."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi._session_rules import REVOKED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mks_hardening.protocols import Clock

__all__ = ["RETENTION", "MemorySessionStore"]

# Seconds an ended or expired session is remembered, only so that the reason can be named to late requests.
RETENTION: Final = 300.0
_SWEEP_EVERY: Final = 60.0


class MemorySessionStore:
    """A store in the memory of one process; its sessions end with the process.

    A living session is never evicted: when the store is full of them, new sign-ins fail instead
    (``BackendUnavailableError``, reason ``oom``).

    Args:
        max_entries: sessions kept at most, ended ones that are still remembered included.
        clock: source of time for those who use the store.

    Raises:
        ConfigurationError: ``max_entries`` is not a positive whole number.
    """

    __slots__ = ("_by_user", "_lock", "_max_entries", "_records", "_swept_at", "clock")

    def __init__(self, *, max_entries: int = 100_000, clock: Clock | None = None) -> None:
        if not isinstance(max_entries, int) or isinstance(max_entries, bool) or max_entries < 1:
            raise ConfigurationError("max_entries must be a positive int", parameter="max_entries")
        self.clock: Clock | None = clock
        self._max_entries = max_entries
        self._records: dict[str, SessionRecord] = {}
        self._by_user: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._swept_at = 0.0

    def load(self, key: str, /) -> SessionRecord | None:
        """The session, alive or remembered as ended; ``None`` when it is unknown."""
        return self._records.get(key)

    def create(
        self,
        record: SessionRecord,
        /,
        *,
        now: float,
        replaces: str | None = None,
        max_sessions: int | None = None,
    ) -> list[str]:
        """Add a session, end ``replaces``, and end the user's oldest sessions beyond ``max_sessions``.

        Raises:
            BackendUnavailableError: the store is full of living sessions.
        """
        with self._lock:
            if record.key in self._records:
                return []
            self._make_room(now)
            if replaces is not None:
                self._end(replaces, REVOKED)
            self._add(record)
            if max_sessions is None:
                return []
            others = [old for old in self._living(record.user_id, now) if old.key != record.key]
            beyond = [old.key for old in others[: max(0, len(others) + 1 - max_sessions)]]
            for key in beyond:
                self._end(key, REVOKED)
            return beyond

    def rotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Move a living session to a new key and end the old one; ``None`` when it does not live."""
        with self._lock:
            if new_key in self._records:
                return self._records[new_key]
            record = self._records.get(key)
            if record is None or record.ended:
                return None
            self._make_room(now)
            self._end(key, REVOKED)
            if data is not None:
                record = record._replace(data=data, version=record.version + 1)
            moved = record._replace(key=new_key)
            self._add(moved)
            return moved

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of a living session; both times only move forward."""
        with self._lock:
            record = self._records.get(key)
            if record is None or record.ended:
                return False
            self._records[key] = record._replace(
                seen_at=max(record.seen_at, seen_at), expires_at=max(record.expires_at, expires_at)
            )
            return True

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session lives and still has that version."""
        with self._lock:
            record = self._records.get(key)
            if record is None or record.ended or record.version != version:
                return False
            self._records[key] = record._replace(data=data, version=version + 1)
            return True

    def end(self, key: str, /, *, reason: str) -> bool:
        """End a living session; ``False`` when there was none."""
        with self._lock:
            return self._end(key, reason)

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all living sessions of a user but ``keep``; tells how many."""
        with self._lock:
            living = len([old for old in self._living(user_id, now) if old.key != keep])
            for key in self._by_user.get(user_id, set()) - {keep}:
                self._end(key, REVOKED)
            return living

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """The living sessions of a user whose ``expires_at`` lies ahead, oldest first."""
        with self._lock:
            return self._living(user_id, now)

    def ping(self) -> bool:
        """Memory always answers."""
        return True

    def close(self) -> None:
        """Nothing to release."""

    def __repr__(self) -> str:
        return f"MemorySessionStore({len(self._records)} of {self._max_entries})"

    # --- under the lock ---

    def _add(self, record: SessionRecord) -> None:
        self._records[record.key] = record
        self._by_user.setdefault(record.user_id, set()).add(record.key)

    def _end(self, key: str, reason: str) -> bool:
        record = self._records.get(key)
        if record is None or record.ended:
            return False
        self._records[key] = record._replace(ended=reason, data="{}")
        self._unlist(record)
        return True

    def _unlist(self, record: SessionRecord) -> None:
        keys = self._by_user.get(record.user_id, set())
        keys.discard(record.key)
        if not keys:
            self._by_user.pop(record.user_id, None)

    def _living(self, user_id: str, now: float) -> list[SessionRecord]:
        records = (self._records[key] for key in self._by_user.get(user_id, ()))
        return sorted(
            (old for old in records if old.expires_at > now), key=lambda old: (old.created_at, old.key)
        )

    def _make_room(self, now: float) -> None:
        full = len(self._records) >= self._max_entries
        if full or not 0 <= now - self._swept_at < _SWEEP_EVERY:
            self._swept_at = now
            for record in list(self._forgettable(now)):
                del self._records[record.key]
                self._unlist(record)
        if len(self._records) >= self._max_entries:
            raise BackendUnavailableError("memory", "oom", operation="create", sent=False)

    def _forgettable(self, now: float) -> Iterator[SessionRecord]:
        return (record for record in self._records.values() if record.expires_at + RETENTION <= now)
