"""Protocols for the session of a request and for session stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = ["AsyncSessionStore", "SessionRecord", "SessionStore", "SignInSession"]


class SessionRecord(NamedTuple):
    """Stored session; an immutable value.

    Attributes:
        key: hexadecimal SHA-256 of the session id; the id itself is never stored.
        user_id: id of the user.
        created_at: wall time of the sign-in; unchanged by rotation.
        seen_at: wall time of the last recorded activity; only moves forward.
        expires_at: wall time after which the store may delete the session.
        data: data of the application, as JSON text of an object.
        version: incremented with every change of ``data``.
        ended: empty for an active session, else the reason why it ended: ``idle``, ``absolute``, ``revoked``, or
            ``rotated`` and ``replaced`` if the browser got a new id.
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
    """Stores sessions; every store must pass the contract suite in ``mks_hardening.testing``.

    Each operation is atomic. No operation reactivates an ended session. An ended session is remembered until some
    time after ``expires_at``, so that the reason can still be reported. The caller supplies the times. A store that
    does not respond raises ``BackendUnavailableError``; repeating an operation whose response was lost must not
    change anything more.
    """

    def load(self, key: str, /) -> SessionRecord | None:
        """Return the session, active or remembered as ended; ``None`` if it is unknown."""
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
        """Create a session, end ``replaces``, and end the user's oldest sessions beyond ``max_sessions``.

        ``replaces`` ends as ``replaced``, and its ``seen_at`` and ``expires_at`` become ``now``. Returns the keys
        of the sessions that were ended because of the limit.
        """
        ...

    def rotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Move an active session to a new key and end the old one; ``None`` if it is not active.

        The old one ends as ``rotated``, keeps its data, and its ``seen_at`` and ``expires_at`` become ``now``:
        requests in flight with the old id may still read for some seconds.
        """
        ...

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of an active session; both times only move forward. ``False`` if it is not active."""
        ...

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session is active and still has that version; the version increases by one."""
        ...

    def end(self, key: str, /, *, reason: str) -> bool:
        """End an active session; return ``False`` if there was none."""
        ...

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all sessions of a user except ``keep``; return how many were active.

        Sessions whose ``expires_at`` has passed are ended too: a web server may have activity that is not yet
        written.
        """
        ...

    def sessions(self, user_id: str, /, *, now: float) -> Sequence[SessionRecord]:
        """Return the active sessions of a user whose ``expires_at`` is in the future, oldest first."""
        ...

    def ping(self) -> bool:
        """Return whether the store responds."""
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...


class AsyncSessionStore(Protocol):
    """Session store with asynchronous methods; a plain ``SessionStore`` is called in a worker thread instead."""

    async def aload(self, key: str, /) -> SessionRecord | None:
        """Asynchronous ``SessionStore.load``."""
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
        """Asynchronous ``SessionStore.create``."""
        ...

    async def arotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Asynchronous ``SessionStore.rotate``."""
        ...

    async def atouch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Asynchronous ``SessionStore.touch``."""
        ...

    async def aupdate(self, key: str, /, *, version: int, data: str) -> bool:
        """Asynchronous ``SessionStore.update``."""
        ...

    async def aend(self, key: str, /, *, reason: str) -> bool:
        """Asynchronous ``SessionStore.end``."""
        ...

    async def aend_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """Asynchronous ``SessionStore.end_user``."""
        ...

    async def asessions(self, user_id: str, /, *, now: float) -> Sequence[SessionRecord]:
        """Asynchronous ``SessionStore.sessions``."""
        ...


class SignInSession(Protocol):
    """Session of a request as used by a sign-in; ``SessionHandle`` implements it and its asynchronous methods."""

    @property
    def user_id(self) -> str | None:
        """Id of the user; ``None`` without a session."""
        ...

    @property
    def reference(self) -> str | None:
        """Identifier of the session that cannot be used as a cookie."""
        ...

    @property
    def data(self) -> Mapping[str, object]:
        """Data of the session."""
        ...

    def start(self, user_id: str, *, data: Mapping[str, object]) -> None:
        """Start a new session under a new id."""
        ...

    def rotate(self) -> bool:
        """Give the session a new id; return whether it is active."""
        ...

    def update_data(self, **changes: object) -> bool:
        """Change some of the data; return whether the session is active."""
        ...

    def end(self) -> object:
        """End the session; one that ``start`` created in this request is never sent to the client."""
        ...

    def end_others(self) -> int:
        """End the user's other sessions; return how many were active."""
        ...
