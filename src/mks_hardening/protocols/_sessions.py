"""Sessions: one of a request, and the stores that keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = ["AsyncSessionStore", "SessionRecord", "SessionStore", "SignInSession"]


class SessionRecord(NamedTuple):
    """One session as a store keeps it; a plain value.

    Attributes:
        key: hexadecimal SHA-256 of the session id; the id itself is never stored.
        user_id: whose session it is.
        created_at: wall time of the sign-in; rotation keeps it.
        seen_at: wall time of the last recorded activity; only moves forward.
        expires_at: wall time after which the store may forget the session.
        data: what the application keeps with it, as JSON text of an object.
        version: grows with every change of ``data``.
        ended: empty while the session lives, else why it ended: ``idle``, ``absolute``, ``revoked``, or ``rotated``
            and ``replaced`` when the browser got a new id.
    """

    key: str
    user_id: str
    created_at: float
    seen_at: float
    expires_at: float
    data: str = "{}"
    version: int = 0
    ended: str = ""

    def __repr__(self) -> str:
        return f"SessionRecord(key={self.key[:8]!r}..., ended={self.ended!r})"


class SessionStore(Protocol):
    """Keeps sessions; see ``mks_hardening.testing`` for the contract suite every store must pass.

    Each operation is atomic. An ended session stays dead: no operation revives it, and it is remembered as ended
    until a while after ``expires_at``, so that the reason can still be named. Times are given by the caller. A
    store that cannot answer raises ``BackendUnavailableError``; repeating an operation whose answer was lost
    must change nothing more.
    """

    def load(self, key: str, /) -> SessionRecord | None:
        """The session, alive or remembered as ended; ``None`` when it is unknown."""
        ...

    def create(
        self,
        record: SessionRecord,
        /,
        *,
        now: float,
        replaces: str | None = None,
        max_sessions: int | None = None,
    ) -> Sequence[str]:
        """Add a session, end ``replaces``, and end the user's oldest sessions beyond ``max_sessions``.

        ``replaces`` ends as ``replaced``, and its ``seen_at`` and ``expires_at`` become ``now``. Returns the keys
        of the sessions that were ended for the limit.
        """
        ...

    def rotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Move a living session to a new key; the old one ends. ``None`` when it does not live.

        The old one ends as ``rotated``, keeps its data, and its ``seen_at`` and ``expires_at`` become ``now``:
        requests that were under way with it may still read for some seconds.
        """
        ...

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of a living session; both times only move forward. ``False`` when it does not live."""
        ...

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session lives and still has that version; the version grows by one."""
        ...

    def end(self, key: str, /, *, reason: str) -> bool:
        """End a living session; ``False`` when there was none."""
        ...

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all sessions of a user but ``keep``; tells how many lived.

        Those whose ``expires_at`` has passed end too: a web server may know of activity not written yet.
        """
        ...

    def sessions(self, user_id: str, /, *, now: float) -> Sequence[SessionRecord]:
        """The living sessions of a user whose ``expires_at`` lies ahead, oldest first."""
        ...

    def ping(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...


class AsyncSessionStore(Protocol):
    """A store that can be asked on a running event loop; a plain ``SessionStore`` is asked in a thread there."""

    async def aload(self, key: str, /) -> SessionRecord | None:
        """``SessionStore.load`` for asyncio."""
        ...

    async def acreate(
        self,
        record: SessionRecord,
        /,
        *,
        now: float,
        replaces: str | None = None,
        max_sessions: int | None = None,
    ) -> Sequence[str]:
        """``SessionStore.create`` for asyncio."""
        ...

    async def arotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """``SessionStore.rotate`` for asyncio."""
        ...

    async def atouch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """``SessionStore.touch`` for asyncio."""
        ...

    async def aupdate(self, key: str, /, *, version: int, data: str) -> bool:
        """``SessionStore.update`` for asyncio."""
        ...

    async def aend(self, key: str, /, *, reason: str) -> bool:
        """``SessionStore.end`` for asyncio."""
        ...

    async def aend_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """``SessionStore.end_user`` for asyncio."""
        ...

    async def asessions(self, user_id: str, /, *, now: float) -> Sequence[SessionRecord]:
        """``SessionStore.sessions`` for asyncio."""
        ...


class SignInSession(Protocol):
    """The session of a request, as a sign-in starts it; ``SessionHandle`` is one, with twins for asyncio."""

    @property
    def user_id(self) -> str | None:
        """Whose it is; ``None`` without one."""
        ...

    @property
    def reference(self) -> str | None:
        """A name for it that is useless as a cookie."""
        ...

    @property
    def data(self) -> Mapping[str, object]:
        """What is kept with it."""
        ...

    def start(self, user_id: str, *, data: Mapping[str, object]) -> None:
        """Begin a new one under a new id."""
        ...

    def rotate(self) -> bool:
        """Give it a new id; whether it lives."""
        ...

    def update_data(self, **changes: object) -> bool:
        """Change some of what is kept; whether it lives."""
        ...

    def end(self) -> object:
        """End it; one that ``start`` has begun in this request is never given to the client."""
        ...

    def end_others(self) -> int:
        """End the user's other ones."""
        ...
