"""Sessions that this process saw lately, and whether they may be believed while the store is away."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_hardening.protocols import SessionRecord

    # Record, time of the last activity, monotonic time at which the store confirmed it, and the number of ends
    # before that. A plain tuple: naming the fields would cost as much as judging the session.
    Seen = tuple[SessionRecord, float, float, int]

__all__ = ["ENDS", "RecentSessions"]

_MAX_RECENT: Final = 10_000
_MAX_ENDS: Final = 10_000


class _Ends:
    """What was ended in this process, by whatever part of it.

    One for the process: a manager may have a store object of its own, and a key or a user that is marked for a
    store too many only loses its grace during an outage. Each end has a number. A look-up notes the number
    before it asks the store, so what it then remembers is older than an end that it raced with.
    """

    __slots__ = ("_keys", "_oldest", "_users", "count")

    def __init__(self) -> None:
        self.count = 0
        self._oldest = 0
        self._keys: dict[str, int] = {}
        self._users: dict[str, tuple[int, str | None, int]] = {}

    def session(self, key: str) -> None:
        """The store has confirmed that this session is over."""
        self.count += 1
        self._keys[key] = self.count
        self._forget_oldest()

    def user(self, user_id: str, *, keep: str | None = None) -> None:
        """The store has confirmed that all sessions of a user but ``keep`` are over."""
        before = self._users.get(user_id, (0, None, 0))[0]
        self.count += 1
        self._users[user_id] = self.count, keep, before
        self._forget_oldest()

    def ended(self, key: str) -> bool:
        """Whether the end of this session is known here."""
        return key in self._keys

    def spare(self, key: str, user_id: str, number: int) -> bool:
        """Whether no end is known that came after the look-up with this number."""
        last, kept, before = self._users.get(user_id, (0, None, 0))
        return number >= max(self._oldest, self._keys.get(key, 0), before if key == kept else last)

    def _forget_oldest(self) -> None:
        # What is forgotten could have ended anything that was looked up before.
        if len(self._keys) + len(self._users) > _MAX_ENDS:
            self._oldest = self.count
            self._keys, self._users = {}, {}


ENDS: Final = _Ends()


class RecentSessions(dict[str, "Seen"]):
    """A bounded memory of sessions, without locks: threads may lose an entry, which costs a grace."""

    __slots__ = ()

    def make_room(self) -> None:
        """Forget the oldest, before another is added."""
        while len(self) >= _MAX_RECENT:
            with suppress(RuntimeError, StopIteration):  # other threads write too
                self.pop(next(iter(self)), None)

    def forget(self, key: str) -> None:
        """Believe it no more."""
        self.pop(key, None)
