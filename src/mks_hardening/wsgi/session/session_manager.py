"""What an operator or a settings page does with sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.checks import offers
from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.store_calls import ask
from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi.session._recent_sessions import ENDS
from mks_hardening.wsgi.session._session_lookup import end_heir, tell
from mks_hardening.wsgi.session._session_rules import REVOKED, ROTATED
from mks_hardening.wsgi.session._steady_clock import SteadyClock, clock_of, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening.protocols import Clock, SessionStore

__all__ = ["SessionManager"]


class SessionManager:
    """Lists and ends sessions from outside their requests (ASVS 7.4.2, 7.4.5, 7.5.2).

    Every method raises ``BackendUnavailableError`` when the store cannot answer, and has a twin for asyncio, named
    with an ``a`` in front.

    Args:
        store: the store that ``SessionTimeoutMiddleware`` uses.
        clock: source of time; by default the store's. Give the one that the middleware has, if it has its own.
    """

    __slots__ = ("_now", "_store")

    def __init__(self, store: SessionStore, *, clock: Clock | None = None) -> None:
        self._store = offers(store, "load", "sessions", parameter="store", kind="a SessionStore")
        self._now = SteadyClock(clock_of(store, clock)).time

    def sessions(self, user_id: str) -> Sequence[SessionRecord]:
        """The living sessions of a user, oldest first.

        ``record.key`` equals ``SessionHandle.reference`` for the session of the request at hand.
        """
        return run(self._sessions(user_id))

    async def asessions(self, user_id: str) -> Sequence[SessionRecord]:
        """``sessions`` for asyncio."""
        return await arun(self._sessions(user_id))

    def end(self, session: SessionRecord | str) -> bool:
        """End one session, given as a record or by its key; ``False`` when it did not live.

        It is ended too where it was given another id since somebody saw it in a list, five minutes ago at most.
        """
        return run(self._end(session))

    async def aend(self, session: SessionRecord | str) -> bool:
        """``end`` for asyncio."""
        return await arun(self._end(session))

    def end_user(self, user_id: str) -> int:
        """End all sessions of a user, for example when the account is disabled; tells how many."""
        return run(self._end_user(user_id))

    async def aend_user(self, user_id: str) -> int:
        """``end_user`` for asyncio."""
        return await arun(self._end_user(user_id))

    def _sessions(self, user_id: str) -> Op[Sequence[SessionRecord]]:
        yield from settle(self._store)
        return (yield from ask(self._store.sessions, user_id, now=self._now()))

    def _end(self, session: SessionRecord | str) -> Op[bool]:
        key = session if isinstance(session, str) else session.key
        ended = yield from ask(self._store.end, key, reason=REVOKED)
        if not ended:
            # It may have been rotated since somebody saw it in a list.
            record = yield from ask(self._store.load, key)
            if record is not None and record.ended == ROTATED:
                yield from settle(self._store)
                heir = yield from end_heir(self._store, record, now=self._now())
                if heir is not None:
                    ENDS.session(heir.key)
                    ended = True
        # After the store: in between the other order would let a request load it anew and remember it as living.
        ENDS.session(key)
        if ended:
            tell("ended", REVOKED, None if isinstance(session, str) else session.user_id)
        return ended

    def _end_user(self, user_id: str) -> Op[int]:
        yield from settle(self._store)
        number = yield from ask(self._store.end_user, user_id, now=self._now())
        ENDS.user(user_id)
        if number:
            tell("ended", REVOKED, user_id)
        return number
