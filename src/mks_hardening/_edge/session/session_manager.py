"""Session management for operators and account settings pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.checks import offers
from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.store_calls import call_store
from mks_hardening._edge.session.ended_sessions import ENDS
from mks_hardening._edge.session.session_lookup import emit_session_event, end_successor
from mks_hardening._edge.session.session_rules import REVOKED, ROTATED
from mks_hardening._edge.session.steady_clock import SteadyClock, clock_of, settle
from mks_hardening.protocols import SessionRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening.protocols import Clock, SessionStore

__all__ = ["SessionManager"]


class SessionManager:
    """List and end sessions outside their own requests (ASVS 7.4.2, 7.4.5, 7.5.2).

    Every method raises ``BackendUnavailableError`` if the store is unavailable, and has an asyncio version, whose
    name begins with ``a``.

    Args:
        store: the store that ``SessionTimeoutMiddleware`` uses.
        clock: source of time; by default that of the store. If the middleware has its own clock, pass the same one.
    """

    __slots__ = ("_now", "_store")

    def __init__(self, store: SessionStore, *, clock: Clock | None = None) -> None:
        self._store = offers(store, "load", "sessions", parameter="store", kind="a SessionStore")
        self._now = SteadyClock(clock_of(store, clock)).time

    def sessions(self, user_id: str) -> Sequence[SessionRecord]:
        """Return the living sessions of a user, oldest first.

        ``record.key`` equals ``SessionHandle.reference`` for the session of the current request.
        """
        return run(self._sessions(user_id))

    async def asessions(self, user_id: str) -> Sequence[SessionRecord]:
        """``sessions`` for asyncio."""
        return await arun(self._sessions(user_id))

    def end(self, session: SessionRecord | str) -> bool:
        """End one session, given as a record or by its key; ``False`` if it was not alive.

        A session that was rotated after it was listed is ended too, if the rotation was at most five minutes ago.
        """
        return run(self._end(session))

    async def aend(self, session: SessionRecord | str) -> bool:
        """``end`` for asyncio."""
        return await arun(self._end(session))

    def end_user(self, user_id: str) -> int:
        """End all sessions of a user, for example when the account is disabled; returns their number."""
        return run(self._end_user(user_id))

    async def aend_user(self, user_id: str) -> int:
        """``end_user`` for asyncio."""
        return await arun(self._end_user(user_id))

    def _sessions(self, user_id: str) -> Op[Sequence[SessionRecord]]:
        yield from settle(self._store)
        return (yield from call_store(self._store.sessions, user_id, now=self._now()))

    def _end(self, session: SessionRecord | str) -> Op[bool]:
        key = session if isinstance(session, str) else session.key
        ended = yield from call_store(self._store.end, key, reason=REVOKED)
        if not ended:
            # It may have been rotated since it was listed.
            record = yield from call_store(self._store.load, key)
            if record is not None and record.ended == ROTATED:
                yield from settle(self._store)
                successor = yield from end_successor(self._store, record, now=self._now())
                if successor is not None:
                    ENDS.record_session(successor.key)
                    ended = True
        # After the store: in the other order, a request could load the session in between and cache it as alive.
        ENDS.record_session(key)
        if ended:
            emit_session_event("ended", REVOKED, None if isinstance(session, str) else session.user_id)
        return ended

    def _end_user(self, user_id: str) -> Op[int]:
        yield from settle(self._store)
        number = yield from call_store(self._store.end_user, user_id, now=self._now())
        ENDS.record_user(user_id)
        if number:
            emit_session_event("ended", REVOKED, user_id)
        return number
