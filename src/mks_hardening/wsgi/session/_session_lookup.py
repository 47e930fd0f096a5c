"""Looks sessions up, records their activity sparingly, and bridges short outages of the store."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from mks_hardening._core import hooks
from mks_hardening._core.operations import Call, Op, arun, run
from mks_hardening._core.store_calls import ask, asked
from mks_hardening.events import SessionChanged
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.wsgi.session._recent_sessions import ENDS, RecentSessions
from mks_hardening.wsgi.session._session_ids import key_of, owner_known
from mks_hardening.wsgi.session._session_rules import (
    CLOCKS_AGREE,
    LATE_ARRIVAL,
    REVOKED,
    ROTATED,
    ROTATION_GRACE,
    SUCCEEDED,
    SessionLimits,
    judge,
)
from mks_hardening.wsgi.session._steady_clock import SteadyClock, clock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening.protocols import Clock, SessionRecord, SessionStore
    from mks_hardening.wsgi.session._recent_sessions import Seen

__all__ = ["NOT_FOUND", "FoundSession", "SessionLookup", "end_heir", "tell"]

_logger: Final = logging.getLogger("mks_hardening.session")
_MOST_MOVES: Final = 10

# A session as it was found: its record, why it is over (empty while it lives), and the nearer limit. A plain
# tuple: naming the fields would cost as much as judging the session.
FoundSession = tuple["SessionRecord | None", str, float]
NOT_FOUND: Final[FoundSession] = (None, REVOKED, 0.0)


class SessionLookup:
    """What all requests share: store, limits, clock, and a bounded memory of sessions seen lately.

    The memory serves three ends. Activity is written to the store once in ``write_interval``; in between it is
    remembered here, so that this process ends an idle session to the second. While the store is away, a session
    that it confirmed less than ``outage_grace`` seconds ago is still believed. And a process that has seen a
    session alive knows that its clock agrees with the one that stamped it.

    What changes a session is an operation, for ``run`` and ``arun``.
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
        chosen = clock_of(store, clock)
        self._one_clock = chosen is getattr(store, "clock", None)
        self.wall: Callable[[], float] = chosen.time
        steady = SteadyClock(chosen)
        self.now: Callable[[], float] = steady.time
        self._read_clock = steady.read
        self._write_interval = write_interval
        self._outage_grace = outage_grace
        self._max_sessions = max_sessions
        self._on_expired = on_expired
        self._recent = RecentSessions()

    # --- looking up: every request does it, so there is no generator unless something is to be written ---

    def find(self, session_id: str, *, active: bool) -> FoundSession:
        """Judge the session and, when it lives and the request counts, record the activity.

        Raises:
            BackendUnavailableError: the store is away, and was so for longer than the grace.
        """
        key = key_of(session_id)
        # Before the store is asked: an end that comes between must not be overwritten by what was loaded earlier.
        ends = ENDS.count
        try:
            record = self.store.load(key)
        except BackendUnavailableError as error:
            return self._believed(key, error, active=active)
        found = self._weigh(key, record, ends, active)
        return found if isinstance(found, tuple) else run(found)

    async def afind(self, session_id: str, *, active: bool) -> FoundSession:
        """``find`` for asyncio."""
        key = key_of(session_id)
        ends = ENDS.count
        try:
            record = await asked(self.store.load, key)
        except BackendUnavailableError as error:
            return self._believed(key, error, active=active)
        found = self._weigh(key, record, ends, active)
        return found if isinstance(found, tuple) else await arun(found)

    def _weigh(
        self,
        key: str,
        record: SessionRecord | None,
        ends: int,
        active: bool,  # noqa: FBT001 - by position, for the speed of every request
    ) -> FoundSession | Op[FoundSession]:
        """What was found, or the operation that finds out the rest."""
        recent = self._recent.get(key)
        if record is None:
            self._recent.forget(key)
            return NOT_FOUND
        now, monotonic = self._read_clock()
        seen_at = stamped = record.seen_at
        if stamped > now + CLOCKS_AGREE:
            record = _bounded(record, recent, now)
            seen_at = stamped = record.seen_at
        if recent is not None and recent[1] > seen_at:
            seen_at = recent[1]
        # What ``judge`` says of the living, written out for the speed of every request.
        idle, absolute = self.limits
        last = record.created_at + absolute
        if record.ended or now >= last or now >= seen_at + idle:
            self._recent.forget(key)
            reason, deadline = judge(record, seen_at, now, self.limits)
            return self._over((record, reason, deadline), known=recent is not None)
        if active and now > seen_at:
            seen_at = now
        deadline = seen_at + idle
        deadline = min(deadline, last)
        if active and seen_at - stamped >= self._write_interval:
            return self._touch(record, (seen_at, monotonic, ends), deadline)
        if recent is None:
            self._recent.make_room()
        self._recent[key] = record, seen_at, monotonic, ends
        return record, "", deadline

    def _believed(self, key: str, error: BackendUnavailableError, *, active: bool) -> FoundSession:
        """A session that the store confirmed a moment ago, while that is away."""
        recent = self._recent.get(key)
        if recent is None:
            raise error
        now, monotonic = self._read_clock()
        if monotonic - recent[2] >= self._outage_grace:
            raise error
        record, seen_at, confirmed_at, ends = recent
        # Signed out here while the store was away, or just before: the memory must not bring it back.
        if not ENDS.spare(key, record.user_id, ends):
            raise error
        reason, deadline = judge(record, seen_at, now, self.limits)
        if reason:
            self._recent.forget(key)
        elif active and now > seen_at:
            deadline = self.limits.deadline(record.created_at, now)
            self._recent[key] = record, now, confirmed_at, ends
        return record, reason, deadline

    def _touch(
        self, record: SessionRecord, seen: tuple[float, float, int], deadline: float
    ) -> Op[FoundSession]:
        """Record activity."""
        seen_at, confirmed_at, ends = seen
        try:
            lives = yield from ask(self.store.touch, record.key, seen_at=seen_at, expires_at=deadline)
        except BackendUnavailableError:
            pass  # the activity is remembered here until the store is back
        else:
            if not lives:  # it was ended since it was loaded
                self._recent.forget(record.key)
                current = yield from ask(self.store.load, record.key)
                if current is None or not current.ended:
                    return NOT_FOUND
                reason, deadline = judge(current, seen_at, seen_at, self.limits)
                return (yield from self._over((current, reason, deadline), known=False))
            record = record._replace(seen_at=seen_at, expires_at=deadline)
        self._remember(record, seen_at, confirmed_at, ends)
        return record, "", deadline

    def _over(self, found: FoundSession, *, known: bool) -> Op[FoundSession]:
        """Make an end by time final, so that no clock revives the session, and tell once."""
        record, reason, deadline = found
        if record is None:
            return found
        if record.ended == ROTATED:
            under_way = self.now() - record.seen_at < ROTATION_GRACE
            if under_way and (yield from self.heir(record)) is not None:
                return record, ROTATED, deadline
        # By the clock of a host that is ahead every session has run out. Such a host must not end them for all:
        # only who has seen this one alive, or shares its clock with all the others, knows better.
        elif not record.ended and (known or self._one_clock):
            yield from self._expire(record, reason)
        return found

    def _expire(self, record: SessionRecord, reason: str) -> Op[None]:
        try:
            ended = yield from ask(self.store.end, record.key, reason=reason)
        except BackendUnavailableError:
            return
        ENDS.session(record.key)
        if ended and self._on_expired is not None and owner_known(record.user_id) is not None:
            try:
                yield Call(partial(self._on_expired, record, reason))
            except Exception:
                _logger.exception("on_expired raised")

    # --- changing ---

    def create(self, record: SessionRecord, *, replaces: SessionRecord | None) -> Op[None]:
        """Record a new session in place of another, under whatever id that goes by now."""
        old = None
        if replaces is not None:
            old = ((yield from self.heir(replaces)) or replaces).key
        ended = yield from ask(
            self.store.create, record, now=record.created_at, replaces=old, max_sessions=self._max_sessions
        )
        for key in (*ended, *([old] if old else [])):
            self._forget(key)
        self._confirm(record)
        if ended:
            tell("ended", REVOKED, record.user_id)
        tell("started", user_id=record.user_id)

    def rotate(self, key: str, new_key: str, *, data: str | None) -> Op[SessionRecord | None]:
        """Move a living session to a new key; ``None`` when it does not live."""
        moved = yield from ask(self.store.rotate, key, new_key, now=self.now(), data=data)
        self._forget(key)
        if moved is not None:
            self._confirm(moved)
            tell("rotated", user_id=moved.user_id)
        return moved

    def refresh(self, record: SessionRecord) -> Op[SessionRecord | None]:
        """Record activity now, whatever the write interval; ``None`` when the session does not live."""
        now = self.now()
        deadline = self.limits.deadline(record.created_at, now)
        if not (yield from ask(self.store.touch, record.key, seen_at=now, expires_at=deadline)):
            self._recent.forget(record.key)
            return None
        record = record._replace(seen_at=now, expires_at=deadline)
        self._confirm(record)
        return record

    def update(self, record: SessionRecord, data: str) -> Op[SessionRecord | None]:
        """Replace the data, or return the record as it stands where another request was faster."""
        if (yield from ask(self.store.update, record.key, version=record.version, data=data)):
            return record._replace(data=data, version=record.version + 1)
        current = yield from ask(self.store.load, record.key)
        return None if current is None or current.ended else current

    def end(self, record: SessionRecord) -> Op[bool]:
        """End one session, also under the id that another request has just given it."""
        ended = yield from ask(self.store.end, record.key, reason=REVOKED)
        if not ended and (heir := (yield from end_heir(self.store, record, now=self.now()))) is not None:
            ended = True
            self._forget(heir.key)
        self._forget(record.key)
        if ended:
            tell("ended", REVOKED, record.user_id)
        return ended

    def end_others(self, record: SessionRecord) -> Op[int]:
        """End the user's sessions but this one."""
        kept = ((yield from self.heir(record)) or record).key
        number = yield from ask(self.store.end_user, record.user_id, now=self.now(), keep=kept)
        ENDS.user(record.user_id, keep=kept)
        if number:
            tell("ended", REVOKED, record.user_id)
        return number

    # --- what became of a session ---

    def heir(self, record: SessionRecord) -> Op[SessionRecord | None]:
        """The living session that this one went on as: rotation keeps the user and the time of the sign-in."""
        now = self.now()
        living = yield from ask(self.store.sessions, record.user_id, now=now)
        chain = [
            other
            for other in living
            # Rotation keeps it to the microsecond, so it names the sign-in; nothing else joins old id and new.
            if other.created_at == record.created_at and not judge(other, other.seen_at, now, self.limits)[0]
        ]
        return next((other for other in chain if other.key == record.key), chain[0] if chain else None)

    def lost(self, record: SessionRecord) -> Op[SessionRecord | None]:
        """The record of a session that did not live any more when it was to be changed."""
        return (yield from ask(self.store.load, record.key))

    def left_alone(self, record: SessionRecord | None) -> bool:
        """Whether the browser's cookie must not be cleared.

        It has another id by now or will have in a moment; or the session is over by the clock of this host alone.
        """
        if record is None:
            return False
        if not record.ended:
            return not ENDS.ended(record.key)
        return record.ended in SUCCEEDED and abs(self.now() - record.seen_at) < LATE_ARRIVAL

    def _forget(self, key: str) -> None:
        ENDS.session(key)
        self._recent.forget(key)

    def _confirm(self, record: SessionRecord) -> None:
        now, monotonic = self._read_clock()
        self._remember(record, min(record.seen_at, now), monotonic, ENDS.count)

    def _remember(self, record: SessionRecord, seen_at: float, confirmed_at: float, ends: int) -> None:
        self._recent.make_room()
        self._recent[record.key] = record, seen_at, confirmed_at, ends


def end_heir(store: SessionStore, record: SessionRecord, *, now: float) -> Op[SessionRecord | None]:
    """End the living session that this one went on as, however often it moves on meanwhile."""
    # Each round but the last was lost to another rotation.
    for _ in range(_MOST_MOVES):
        living = yield from ask(store.sessions, record.user_id, now=now)
        heir = next((other for other in living if other.created_at == record.created_at), None)
        if heir is None or (yield from ask(store.end, heir.key, reason=REVOKED)):
            return heir
    return None


def _bounded(record: SessionRecord, recent: Seen | None, now: float) -> SessionRecord:
    """A record that a host ahead of this one has stamped, as of when this process first saw it.

    Times that lie ahead would keep a session alive for as long as that host is ahead.
    """
    seen_at, created_at = (now, now) if recent is None else (recent[1], recent[0].created_at)
    return record._replace(
        seen_at=min(record.seen_at, seen_at), created_at=min(record.created_at, created_at)
    )


def tell(change: str, reason: str = "", user_id: str | None = None) -> None:
    """Hand an event to the observers, if there are any."""
    if hooks.observers:
        hooks.emit(SessionChanged(change, reason, user_id and owner_known(user_id)))
