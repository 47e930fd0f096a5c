"""Where sessions are kept, and what an operator or a settings page does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi._session_keeper import tell
from mks_hardening.wsgi._session_memory import MemorySessionStore
from mks_hardening.wsgi._session_redis import RedisSessionStore
from mks_hardening.wsgi._session_rules import REVOKED
from mks_hardening.wsgi._steady_clock import SteadyClock, shared_clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening.protocols import Clock, SessionStore

__all__ = ["MemorySessionStore", "RedisSessionStore", "SessionManager"]


class SessionManager:
    """Lists and ends sessions from outside their requests (ASVS 7.4.2, 7.4.5, 7.5.2).

    Every method raises ``BackendUnavailableError`` when the store cannot answer.

    Args:
        store: the store that ``SessionTimeoutMiddleware`` uses.
        clock: source of time; by default the store's, which is that of the middleware.
    """

    __slots__ = ("_now", "_store")

    def __init__(self, store: SessionStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._now = SteadyClock(shared_clock(store, clock)).time

    def sessions(self, user_id: str) -> Sequence[SessionRecord]:
        """The living sessions of a user, oldest first.

        ``record.key`` equals ``SessionHandle.reference`` for the session of the request at hand.
        """
        return self._store.sessions(user_id, now=self._now())

    def end(self, session: SessionRecord | str) -> bool:
        """End one session, given as a record or by its key; ``False`` when it did not live."""
        key = session if isinstance(session, str) else session.key
        ended = self._store.end(key, reason=REVOKED)
        if ended:
            tell("ended", REVOKED, None if isinstance(session, str) else session.user_id)
        return ended

    def end_user(self, user_id: str) -> int:
        """End all sessions of a user, for example when the account is disabled; tells how many."""
        number = self._store.end_user(user_id, now=self._now())
        if number:
            tell("ended", REVOKED, user_id)
        return number
