"""Session store in memory, for development, tests and single-process services."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, Final

from mks_hardening._core.checks import whole_number
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._edge.session.session_rules import REPLACED, REVOKED, ROTATED, surplus_sessions
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mks_hardening.protocols import Clock
from mks_hardening._edge.session.stores.retention import RETENTION

__all__ = ["MemorySessionStore"]

_SWEEP_EVERY: Final = 60.0


class MemorySessionStore(Closing):
    """A session store in the memory of one process; its sessions end with the process.

    A living session is never evicted: if the store is full of them, new sign-ins fail instead
    (``BackendUnavailableError``, reason ``oom``).

    Args:
        max_entries: maximum number of sessions, including ended ones that are retained.
        clock: source of time for the users of the store; by default that of the system.

    Raises:
        ConfigurationError: ``max_entries`` is not a positive whole number.
    """

    in_memory: ClassVar[bool] = True  # its methods return at once, so they may be called on an event loop

    __slots__ = ("__weakref__", "_by_user", "_lock", "_max_entries", "_records", "_swept_at", "clock")

    def __init__(self, *, max_entries: int = 100_000, clock: Clock | None = None) -> None:
        self.clock: Clock = given_clock(clock)
        self._max_entries = whole_number(max_entries, parameter="max_entries", minimum=1)
        self._records: dict[str, SessionRecord] = {}
        self._by_user: dict[str, set[str]] = {}
        self._lock = threading.RLock()
        self._swept_at = 0.0
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the lock in a forked child, where a thread of the parent may hold it.

        A change that such a thread was making may be incomplete in the child; the code that reads the lists allows
        for that.
        """
        self._lock = threading.RLock()

    def load(self, key: str, /) -> SessionRecord | None:
        """Return the session, alive or ended but retained; ``None`` if it is unknown."""
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

        Returns:
            The keys of the sessions beyond ``max_sessions``.

        Raises:
            BackendUnavailableError: the store is full of living sessions.
        """
        with self._lock:
            if record.key in self._records:
                return []
            self._make_room(now)
            if replaces is not None:
                self._succeed(replaces, REPLACED, now)
            self._add(record)
            if max_sessions is None:  # no need to collect the others
                return []
            others = [old for old in self._living(record.user_id, now) if old.key != record.key]
            beyond = surplus_sessions(others, max_sessions)
            for key in beyond:
                self._end(key, REVOKED)
            return beyond

    def rotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Move a living session to a new key and end the old one; ``None`` if it is not alive."""
        with self._lock:
            moved = self._records.get(new_key)
            if moved is not None and not moved.ended:  # the same operation was repeated
                return moved
            record = self._records.get(key)
            if record is None or record.ended:
                return None
            self._make_room(now)
            self._succeed(key, ROTATED, now)
            if data is not None:
                record = record._replace(data=data, version=record.version + 1)
            moved = record._replace(key=new_key)
            self._add(moved)
            return moved

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of a living session; both times only increase."""
        with self._lock:
            record = self._records.get(key)
            if record is None or record.ended:
                return False
            self._records[key] = record._replace(
                seen_at=max(record.seen_at, seen_at), expires_at=max(record.expires_at, expires_at)
            )
            return True

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session is alive and has this version."""
        with self._lock:
            record = self._records.get(key)
            if record is None or record.ended or record.version != version:
                return False
            self._records[key] = record._replace(data=data, version=version + 1)
            return True

    def end(self, key: str, /, *, reason: str) -> bool:
        """End a living session; ``False`` if there was none."""
        with self._lock:
            return self._end(key, reason)

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all living sessions of a user except ``keep``; returns their number."""
        with self._lock:
            living = len([old for old in self._living(user_id, now) if old.key != keep])
            for key in self._by_user.get(user_id, set()) - {keep}:
                self._end(key, REVOKED)
            return living

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """Return the living sessions of a user with ``expires_at`` in the future, oldest first."""
        with self._lock:
            return self._living(user_id, now)

    def ping(self) -> bool:
        """Return ``True``: memory is always available."""
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    # --- for asyncio: these methods wait only for other threads of this process ---

    async def aload(self, key: str, /) -> SessionRecord | None:
        """``load`` for asyncio."""
        return self.load(key)

    async def acreate(
        self,
        record: SessionRecord,
        /,
        *,
        now: float,
        replaces: str | None = None,
        max_sessions: int | None = None,
    ) -> list[str]:
        """``create`` for asyncio."""
        return self.create(record, now=now, replaces=replaces, max_sessions=max_sessions)

    async def arotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """``rotate`` for asyncio."""
        return self.rotate(key, new_key, now=now, data=data)

    async def atouch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """``touch`` for asyncio."""
        return self.touch(key, seen_at=seen_at, expires_at=expires_at)

    async def aupdate(self, key: str, /, *, version: int, data: str) -> bool:
        """``update`` for asyncio."""
        return self.update(key, version=version, data=data)

    async def aend(self, key: str, /, *, reason: str) -> bool:
        """``end`` for asyncio."""
        return self.end(key, reason=reason)

    async def aend_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """``end_user`` for asyncio."""
        return self.end_user(user_id, now=now, keep=keep)

    async def asessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """``sessions`` for asyncio."""
        return self.sessions(user_id, now=now)

    async def aping(self) -> bool:
        """``ping`` for asyncio."""
        return self.ping()

    def __repr__(self) -> str:
        return f"MemorySessionStore({len(self._records)} of {self._max_entries})"

    # --- the lock must be held ---

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

    def _succeed(self, key: str, reason: str, now: float) -> None:
        """End a session because the browser got another one; retained for requests that are in progress."""
        record = self._records.get(key)
        if record is not None and not record.ended:
            data = record.data if reason == ROTATED else "{}"
            self._records[key] = record._replace(ended=reason, data=data, seen_at=now, expires_at=now)
            self._unlist(record)

    def _unlist(self, record: SessionRecord) -> None:
        keys = self._by_user.get(record.user_id, set())
        keys.discard(record.key)
        if not keys:
            self._by_user.pop(record.user_id, None)

    def _living(self, user_id: str, now: float) -> list[SessionRecord]:
        records = (self._records.get(key) for key in self._by_user.get(user_id, ()))
        living = (old for old in records if old is not None and not old.ended and old.expires_at > now)
        return sorted(living, key=lambda old: (old.created_at, old.key))

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
