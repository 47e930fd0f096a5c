"""Session look-up: validates sessions, records activity at intervals and bridges short outages of the store."""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening._core.function_errors import log_function_error
from mks_hardening._core.memo import drop_oldest
from mks_hardening._core.operations import Call, Op, arun, run
from mks_hardening._core.store_calls import acall_store, call_store
from mks_hardening._edge.session.ended_sessions import ENDS
from mks_hardening._edge.session.session_ids import key_of, user_id_of_owner
from mks_hardening._edge.session.session_rules import (
    CLOCKS_AGREE,
    COOKIE_GRACE,
    ENDED_BY_NEW_ID,
    REVOKED,
    ROTATED,
    ROTATION_GRACE,
    SessionLimits,
    check_session,
)
from mks_hardening._edge.session.steady_clock import SteadyClock, clock_of
from mks_hardening.events import SessionChanged
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

    # Record, time of the last activity, monotonic time at which the store confirmed it, and the number of ended
    # sessions before that. A plain tuple: named fields would cost as much as validating the session.
    Seen = tuple[SessionRecord, float, float, int]

__all__ = ["NOT_FOUND", "FoundSession", "SessionLookup", "emit_session_event", "end_successor"]

_MOST_RECENT: Final = 10_000
"""Sessions that are remembered for an outage; one that is dropped loses its grace period."""

_logger: Final = logging.getLogger("mks_hardening.session")
_MOST_MOVES: Final = 10

# Result of a look-up: the record, why the session has ended (empty while it is alive), and the nearer deadline. A
# plain tuple: named fields would cost as much as validating the session.
FoundSession = tuple["SessionRecord | None", str, float]
NOT_FOUND: Final[FoundSession] = (None, REVOKED, 0.0)


class SessionLookup:
    """State shared by all requests: store, limits, clock, and a bounded cache of recently seen sessions.

    The cache serves three purposes:

    - Activity is written to the store once per ``write_interval``. In between it is recorded here, so that this
      process ends an idle session to the second.
    - While the store is unavailable, a session that the store confirmed less than ``outage_grace`` seconds ago is
      still accepted.
    - A process that has seen a session alive knows that its clock agrees with the clock that stamped the session.

    Methods that change a session are operations, for ``run`` and ``arun``.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        limits: SessionLimits,
        write_interval: float,
        outage_grace: float,
        max_sessions: int | None,
        on_expired: Callable[[SessionRecord, str], object] | None,
        clock: Clock | None,
    ) -> None:
        self.store: SessionStore = store
        self.limits: SessionLimits = limits
        self._idle, self._absolute = limits
        chosen = clock_of(store, clock)
        self._one_clock = chosen is getattr(store, "clock", None)
        self.wall: Callable[[], float] = chosen.time
        steady = SteadyClock(chosen)
        self.now: Callable[[], float] = steady.time
        self._steady_clock = steady
        self._write_interval = write_interval
        self._outage_grace = outage_grace
        self._max_sessions = max_sessions
        self._on_expired = on_expired
        self._recent: OrderedDict[str, Seen] = OrderedDict()
        # By its class: a wrapper that hands attributes on may wait in methods of its own.
        self._in_memory: bool = getattr(type(store), "in_memory", False)
        self.is_async = False

    # --- look-up: on the path of every request, so a generator is created only if something has to be written ---

    def find(self, session_id: str, *, active: bool) -> FoundSession:
        """Validate the session and, if it is alive and ``active`` is set, record the activity.

        Raises:
            BackendUnavailableError: the store is unavailable, and this session was not confirmed within the grace
                period.
        """
        key = key_of(session_id)
        # Read before the store: if the session is ended in between, the record loaded earlier must not overwrite
        # that.
        ends = ENDS.count
        try:
            record = self.store.load(key)
        except BackendUnavailableError as error:
            return self._find_last_known(key, error, active=active)
        found = self._evaluate(key, record, ends, active)
        return found if isinstance(found, tuple) else run(found)

    async def afind(self, session_id: str, *, active: bool) -> FoundSession:
        """``find`` for asyncio."""
        found = self.begin_find(session_id, active=active)
        return found if isinstance(found, tuple) else await found

    def begin_find(self, session_id: str, *, active: bool) -> FoundSession | Awaitable[FoundSession]:
        """``afind`` that returns a result which needs no round trip at once: a coroutine costs as much again."""
        if not self._in_memory:
            return self._afind_in_store(session_id, active)
        key = key_of(session_id)
        ends = ENDS.count
        try:
            record = self.store.load(key)
        except BackendUnavailableError as error:  # of a subclass of the store
            return self._find_last_known(key, error, active=active)
        found = self._evaluate(key, record, ends, active)
        return found if isinstance(found, tuple) else arun(found)

    async def _afind_in_store(self, session_id: str, active: bool) -> FoundSession:  # noqa: FBT001 - as in _evaluate
        key = key_of(session_id)
        ends = ENDS.count
        try:
            record = await acall_store(self.store.load, key)
        except BackendUnavailableError as error:
            return self._find_last_known(key, error, active=active)
        found = self._evaluate(key, record, ends, active)
        return found if isinstance(found, tuple) else await arun(found)

    def _evaluate(
        self,
        key: str,
        record: SessionRecord | None,
        ends: int,
        active: bool,  # noqa: FBT001 - positional, for the speed of every request
    ) -> FoundSession | Op[FoundSession]:
        """Return the result, or an operation that completes it."""
        recent = self._recent.get(key)
        if record is None:
            self._recent.pop(key, None)
            return NOT_FOUND
        now, monotonic = self._steady_clock.read()
        seen_at = stamped = record.seen_at
        if stamped > now + CLOCKS_AGREE:
            record = _bounded(record, recent, now)
            seen_at = stamped = record.seen_at
        if recent is not None and recent[1] > seen_at:
            seen_at = recent[1]
        # The result of ``check_session`` for a session that is alive, inlined for the speed of every request.
        idle, absolute = self._idle, self._absolute
        last = record.created_at + absolute
        if record.ended or now >= last or now >= seen_at + idle:
            self._recent.pop(key, None)
            reason, deadline = check_session(record, seen_at, now, self.limits)
            return self._end_expired((record, reason, deadline), known=recent is not None)
        if active and now > seen_at:
            seen_at = now
        deadline = seen_at + idle
        if last < deadline:  # noqa: PLR1730 - a call of min costs a tenth of this method
            deadline = last
        if active and seen_at - stamped >= self._write_interval:
            return self._touch(record, (seen_at, monotonic, ends), deadline)
        self._recent[key] = record, seen_at, monotonic, ends
        if recent is None:
            drop_oldest(self._recent, _MOST_RECENT)
        return record, "", deadline

    def _find_last_known(self, key: str, error: BackendUnavailableError, *, active: bool) -> FoundSession:
        """Return a session that the store confirmed recently, while the store is unavailable."""
        recent = self._recent.get(key)
        if recent is None:
            raise error
        now, monotonic = self._steady_clock.read()
        if monotonic - recent[2] >= self._outage_grace:
            raise error
        record, seen_at, confirmed_at, ends = recent
        # Ended in this process during the outage or just before it: the cache must not revive the session.
        if not ENDS.is_unaffected(key, record.user_id, ends):
            raise error
        reason, deadline = check_session(record, seen_at, now, self.limits)
        if reason:
            self._recent.pop(key, None)
        elif active and now > seen_at:
            deadline = self.limits.deadline(record.created_at, now)
            self._recent[key] = record, now, confirmed_at, ends
        return record, reason, deadline

    def _touch(
        self, record: SessionRecord, seen: tuple[float, float, int], deadline: float
    ) -> Op[FoundSession]:
        """Write the activity to the store."""
        seen_at, confirmed_at, ends = seen
        try:
            lives = yield from call_store(self.store.touch, record.key, seen_at=seen_at, expires_at=deadline)
        except BackendUnavailableError:
            pass  # the activity is recorded in this process until the store is available again
        else:
            if not lives:  # it has ended since it was loaded
                self._recent.pop(record.key, None)
                current = yield from call_store(self.store.load, record.key)
                if current is None or not current.ended:
                    return NOT_FOUND
                reason, deadline = check_session(current, seen_at, seen_at, self.limits)
                return (yield from self._end_expired((current, reason, deadline), known=False))
            record = record._replace(seen_at=seen_at, expires_at=deadline)
        self._remember(record, seen_at, confirmed_at, ends)
        return record, "", deadline

    def _end_expired(self, found: FoundSession, *, known: bool) -> Op[FoundSession]:
        """Make an expiry final, so that no clock revives the session, and report it once."""
        record, reason, deadline = found
        if record is None:
            return found
        if record.ended == ROTATED:
            under_way = self.now() - record.seen_at < ROTATION_GRACE
            if under_way and (yield from self.successor(record)) is not None:
                return record, ROTATED, deadline
        # A host whose clock is ahead sees every session as expired, and must not end them for all hosts. Only a
        # process that has seen the session alive, or shares its clock with all others, may end it.
        elif not record.ended and (known or self._one_clock):
            yield from self._expire(record, reason)
        return found

    def _expire(self, record: SessionRecord, reason: str) -> Op[None]:
        try:
            ended = yield from call_store(self.store.end, record.key, reason=reason)
        except BackendUnavailableError:
            return
        ENDS.record_session(record.key)
        if ended and self._on_expired is not None and user_id_of_owner(record.user_id) is not None:
            try:
                yield Call(partial(self._on_expired, record, reason))
            except Exception as error:  # noqa: BLE001 - the session has ended
                log_function_error(
                    self._on_expired,
                    error,
                    parameter="on_expired",
                    otherwise="the session has ended all the same",
                    logger=_logger.name,
                )

    # --- changes ---

    def create(self, record: SessionRecord, *, replaces: SessionRecord | None) -> Op[None]:
        """Create a session that replaces another one, under whatever id the other one has by now."""
        old = None
        if replaces is not None:
            old = ((yield from self.successor(replaces)) or replaces).key
        ended = yield from call_store(
            self.store.create, record, now=record.created_at, replaces=old, max_sessions=self._max_sessions
        )
        for key in (*ended, *([old] if old else [])):
            self._forget(key)
        self._confirm(record)
        if ended:
            emit_session_event("ended", REVOKED, record.user_id)
        emit_session_event("started", user_id=record.user_id)

    def rotate(self, key: str, new_key: str, *, data: str | None) -> Op[SessionRecord | None]:
        """Move a living session to a new key; ``None`` if it has ended."""
        moved = yield from call_store(self.store.rotate, key, new_key, now=self.now(), data=data)
        self._forget(key)
        if moved is not None:
            self._confirm(moved)
            emit_session_event("rotated", user_id=moved.user_id)
        return moved

    def refresh(self, record: SessionRecord) -> Op[SessionRecord | None]:
        """Record activity now, regardless of the write interval; ``None`` if the session has ended."""
        now = self.now()
        deadline = self.limits.deadline(record.created_at, now)
        if not (yield from call_store(self.store.touch, record.key, seen_at=now, expires_at=deadline)):
            self._recent.pop(record.key, None)
            return None
        record = record._replace(seen_at=now, expires_at=deadline)
        self._confirm(record)
        return record

    def update(self, record: SessionRecord, data: str) -> Op[SessionRecord | None]:
        """Replace the data; if another request was faster, return the current record instead."""
        if (yield from call_store(self.store.update, record.key, version=record.version, data=data)):
            return record._replace(data=data, version=record.version + 1)
        current = yield from call_store(self.store.load, record.key)
        return None if current is None or current.ended else current

    def end(self, record: SessionRecord) -> Op[bool]:
        """End one session, also if another request has just rotated its id."""
        ended = yield from call_store(self.store.end, record.key, reason=REVOKED)
        if (
            not ended
            and (successor := (yield from end_successor(self.store, record, now=self.now()))) is not None
        ):
            ended = True
            self._forget(successor.key)
        self._forget(record.key)
        if ended:
            emit_session_event("ended", REVOKED, record.user_id)
        return ended

    def end_others(self, record: SessionRecord) -> Op[int]:
        """End the user's other sessions."""
        kept = ((yield from self.successor(record)) or record).key
        number = yield from call_store(self.store.end_user, record.user_id, now=self.now(), keep=kept)
        ENDS.record_user(record.user_id, keep=kept)
        if number:
            emit_session_event("ended", REVOKED, record.user_id)
        return number

    # --- successors of a session ---

    def successor(self, record: SessionRecord) -> Op[SessionRecord | None]:
        """Return the living session that this one became by rotation, which keeps the user and the sign-in time."""
        now = self.now()
        living = yield from call_store(self.store.sessions, record.user_id, now=now)
        chain = [
            other
            for other in living
            # Rotation keeps created_at to the microsecond, so it identifies the sign-in; nothing else links the
            # ids.
            if other.created_at == record.created_at
            and not check_session(other, other.seen_at, now, self.limits)[0]
        ]
        return next((other for other in chain if other.key == record.key), chain[0] if chain else None)

    def lost(self, record: SessionRecord) -> Op[SessionRecord | None]:
        """Load the record of a session that had ended before it could be changed."""
        return (yield from call_store(self.store.load, record.key))

    def keeps_cookie(self, record: SessionRecord | None) -> bool:
        """Return whether the browser's cookie must not be cleared.

        True if the browser already has another id or will get one shortly, or if the session has expired only by
        the clock of this host.
        """
        if record is None:
            return False
        if not record.ended:
            return not ENDS.is_ended(record.key)
        return record.ended in ENDED_BY_NEW_ID and abs(self.now() - record.seen_at) < COOKIE_GRACE

    def _forget(self, key: str) -> None:
        ENDS.record_session(key)
        self._recent.pop(key, None)

    def _confirm(self, record: SessionRecord) -> None:
        now, monotonic = self._steady_clock.read()
        self._remember(record, min(record.seen_at, now), monotonic, ENDS.count)

    def _remember(self, record: SessionRecord, seen_at: float, confirmed_at: float, ends: int) -> None:
        self._recent[record.key] = record, seen_at, confirmed_at, ends
        drop_oldest(self._recent, _MOST_RECENT)


def end_successor(store: SessionStore, record: SessionRecord, *, now: float) -> Op[SessionRecord | None]:
    """End the living session that this one became by rotation, even if it is rotated again in the meantime."""
    # Each attempt but the last lost the race against another rotation.
    for _ in range(_MOST_MOVES):
        living = yield from call_store(store.sessions, record.user_id, now=now)
        successor = next((other for other in living if other.created_at == record.created_at), None)
        if successor is None or (yield from call_store(store.end, successor.key, reason=REVOKED)):
            return successor
    return None


def _bounded(record: SessionRecord, recent: Seen | None, now: float) -> SessionRecord:
    """Limit the times of a record, stamped by a host whose clock is ahead, to when this process first saw it.

    Times in the future would keep a session alive for as long as that clock is ahead.
    """
    seen_at, created_at = (now, now) if recent is None else (recent[1], recent[0].created_at)
    return record._replace(
        seen_at=min(record.seen_at, seen_at), created_at=min(record.created_at, created_at)
    )


def emit_session_event(change: str, reason: str = "", user_id: str | None = None) -> None:
    """Emit a session event, if there are observers."""
    if hooks.observers:
        hooks.emit(SessionChanged(change, reason, user_id and user_id_of_owner(user_id)))
