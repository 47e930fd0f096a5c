"""Sessions that were ended in this process: none of them is accepted while the store is unavailable."""

from __future__ import annotations

from typing import Final

__all__ = ["ENDS", "EndedSessions"]

_MAX_ENDS: Final = 10_000


class EndedSessions:
    """Sessions that were ended anywhere in this process.

    Shared by the whole process, because a ``SessionManager`` may use a store object of its own. Marking a key or
    user for too many stores only costs the grace period during an outage. Each end has a number: a look-up notes
    the number before it reads the store, so that a cached result is known to be older than an end that happened
    concurrently.
    """

    __slots__ = ("_keys", "_oldest", "_users", "count")

    def __init__(self) -> None:
        self.count = 0
        self._oldest = 0
        self._keys: dict[str, int] = {}
        self._users: dict[str, tuple[int, str | None, int]] = {}

    def record_session(self, key: str) -> None:
        """Record that the store has confirmed the end of this session."""
        self.count += 1
        self._keys[key] = self.count
        self._forget_oldest()

    def record_user(self, user_id: str, *, keep: str | None = None) -> None:
        """Record that the store has confirmed the end of all sessions of a user except ``keep``."""
        before = self._users.get(user_id, (0, None, 0))[0]
        self.count += 1
        self._users[user_id] = self.count, keep, before
        self._forget_oldest()

    def is_ended(self, key: str) -> bool:
        """Return whether the end of this session is known here."""
        return key in self._keys

    def is_unaffected(self, key: str, user_id: str, number: int) -> bool:
        """Return whether no end of the session is known since the look-up with this number."""
        last, kept, before = self._users.get(user_id, (0, None, 0))
        return number >= max(self._oldest, self._keys.get(key, 0), before if key == kept else last)

    def _forget_oldest(self) -> None:
        # A discarded entry could have ended any session that was looked up before it.
        if len(self._keys) + len(self._users) > _MAX_ENDS:
            self._oldest = self.count
            self._keys, self._users = {}, {}


ENDS: Final = EndedSessions()
