"""Looks sessions up, records their activity sparingly, and bridges short outages of the store."""

from __future__ import annotations

import contextlib
import logging
import threading
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening.events import SessionChanged
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.wsgi._session_rules import REVOKED, Limits, judge
from mks_hardening.wsgi._steady_clock import SteadyClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

    # Record, time of the last activity, monotonic time at which the store confirmed it.
    _Recent = tuple[SessionRecord, float, float]

__all__ = ["NOT_FOUND", "Found", "SessionKeeper", "key_of"]

_logger: Final = logging.getLogger("mks_hardening.session")
_MAX_RECENT: Final = 10_000


def key_of(session_id: str) -> str:
    """What a store knows a session by: the hash, so that a copy of the store opens no session (ASVS 11.5.1)."""
    return sha256(session_id.encode()).hexdigest()


# A session as it was found: its record, why it is over (empty while it lives), and the nearer limit. A plain
# tuple, as is what is remembered: naming the fields would cost as much as judging the session.
Found = tuple["SessionRecord | None", str, float]
NOT_FOUND: Final[Found] = (None, REVOKED, 0.0)


class SessionKeeper:
    """What all requests share: store, limits, clock, and a bounded memory of sessions seen lately.

    The memory serves two ends. Activity is written to the store once in ``write_interval``; in between it is
    remembered here, so that this process ends an idle session to the second. And while the store is away, a
    session that it confirmed less than ``outage_grace`` seconds ago is still believed.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        limits: Limits,
        write_interval: float,
        outage_grace: float,
        max_sessions: int | None,
        on_expired: Callable[[SessionRecord, str], object] | None,
        clock: Clock,
    ) -> None:
        self.store = store
        self.limits = limits
        self.wall: Callable[[], float] = clock.time
        steady = SteadyClock(clock)
        self.now: Callable[[], float] = steady.time
        self._read_clock = steady.read
        self._write_interval = write_interval
        self._outage_grace = outage_grace
        self._max_sessions = max_sessions
        self._on_expired = on_expired
        self._recent: dict[str, _Recent] = {}
        self._lock = threading.Lock()

    def find(self, session_id: str, *, active: bool) -> Found:
        """Judge the session and, when it lives and the request counts, record the activity.

        Raises:
            BackendUnavailableError: the store is away, and was so for longer than the grace.
        """
        key = key_of(session_id)
        recent = self._recent.get(key)
        now, monotonic = self._read_clock()
        try:
            record, confirmed_at = self.store.load(key), monotonic
        except BackendUnavailableError:
            if recent is None or monotonic - recent[2] >= self._outage_grace:
                raise
            record, _, confirmed_at = recent
        if record is None:
            self._forget(key)
            return NOT_FOUND
        seen_at = record.seen_at
        if recent is not None and recent[1] > seen_at:
            seen_at = recent[1]
        reason, deadline = judge(record, seen_at, now, self.limits)
        if reason:
            self._forget(key)
            return record, reason, deadline
        if active and now > seen_at:
            seen_at = now
            deadline = self.limits.deadline(record.created_at, now)
            if now - record.seen_at >= self._write_interval and confirmed_at == monotonic:
                touched = self._touch(record, now, deadline)
                if touched is None:
                    self._forget(key)
                    return NOT_FOUND
                record = touched
        if recent is None:
            self._make_room()
        self._recent[key] = record, seen_at, confirmed_at
        return record, "", deadline

    def _touch(self, record: SessionRecord, now: float, deadline: float) -> SessionRecord | None:
        """Record activity; ``None`` when the session was ended since it was loaded."""
        try:
            if not self.store.touch(record.key, seen_at=now, expires_at=deadline):
                return None
        except BackendUnavailableError:
            return record  # the activity is remembered here until the store is back
        return record._replace(seen_at=now, expires_at=deadline)

    def _make_room(self) -> None:
        with self._lock:
            while len(self._recent) >= _MAX_RECENT:
                # Other threads write without the lock.
                with contextlib.suppress(RuntimeError, StopIteration):
                    self._recent.pop(next(iter(self._recent)), None)

    def _forget(self, key: str) -> None:
        self._recent.pop(key, None)

    def expire(self, record: SessionRecord, reason: str) -> None:
        """Make the end of a session that ran out final, so that no clock revives it; tell once."""
        try:
            ended = self.store.end(record.key, reason=reason)
        except BackendUnavailableError:
            return
        if ended and self._on_expired is not None:
            try:
                self._on_expired(record, reason)
            except Exception:
                _logger.exception("on_expired raised")

    def create(self, record: SessionRecord, *, replaces: str | None) -> None:
        """Record a new session."""
        ended = self.store.create(
            record, now=record.created_at, replaces=replaces, max_sessions=self._max_sessions
        )
        for key in (*ended, replaces or ""):
            self._forget(key)
        self._confirm(record)
        if ended:
            tell("ended", REVOKED, record.user_id)
        tell("started", user_id=record.user_id)

    def rotate(self, key: str, new_key: str, *, data: str | None) -> SessionRecord | None:
        """Move a living session to a new key; ``None`` when it does not live."""
        moved = self.store.rotate(key, new_key, now=self.now(), data=data)
        self._forget(key)
        if moved is not None:
            self._confirm(moved)
            tell("rotated", user_id=moved.user_id)
        return moved

    def refresh(self, record: SessionRecord) -> SessionRecord | None:
        """Record activity now, whatever the write interval; ``None`` when the session does not live."""
        now = self.now()
        deadline = self.limits.deadline(record.created_at, now)
        if not self.store.touch(record.key, seen_at=now, expires_at=deadline):
            self._forget(record.key)
            return None
        record = record._replace(seen_at=now, expires_at=deadline)
        self._confirm(record)
        return record

    def update(self, record: SessionRecord, data: str) -> SessionRecord | None:
        """Replace the data, or return the record as it stands where another request was faster."""
        if self.store.update(record.key, version=record.version, data=data):
            return record._replace(data=data, version=record.version + 1)
        current = self.store.load(record.key)
        return None if current is None or current.ended else current

    def end(self, record: SessionRecord) -> bool:
        """End one session."""
        ended = self.store.end(record.key, reason=REVOKED)
        self._forget(record.key)
        if ended:
            tell("ended", REVOKED, record.user_id)
        return ended

    def end_others(self, record: SessionRecord) -> int:
        """End the user's sessions but this one."""
        number = self.store.end_user(record.user_id, now=self.now(), keep=record.key)
        if number:
            tell("ended", REVOKED, record.user_id)
        return number

    def _confirm(self, record: SessionRecord) -> None:
        self._make_room()
        self._recent[record.key] = record, record.seen_at, self._read_clock()[1]


def tell(change: str, reason: str = "", user_id: str | None = None) -> None:
    """Hand an event to the observers, if there are any."""
    if hooks.observers:
        hooks.emit(SessionChanged(change, reason, user_id))
