"""What a user may implement, and where the areas meet without knowing each other.

Structural types only: nothing here is to be inherited from, and importing this module loads nothing third-party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "Clock",
    "LimitDecision",
    "LimitStatus",
    "Limiter",
    "Observer",
    "OutgoingAlert",
    "Redactor",
    "RedisLike",
    "SessionRecord",
    "SessionStore",
    "StoredFactor",
    "Transport",
    "TwoFactorStore",
]


@runtime_checkable
class Clock(Protocol):
    """Two readings of time: one that people and other hosts share, one that never steps back."""

    def time(self) -> float:
        """Wall time in seconds since 1970-01-01 UTC; may step."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never steps back."""
        ...


class Observer(Protocol):
    """Receives every event worth counting (``mks_hardening.events``); must be quick and must not raise."""

    def __call__(self, event: Any, /) -> None:
        """Take one event."""
        ...


class RedisLike(Protocol):
    """What we need of a Redis client: redis-py, valkey, fakeredis and a ten-line fake all have it."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command and return its decoded answer."""
        ...


class Redactor(Protocol):
    """Takes secrets out of what is about to leave the process."""

    def redact(self, value: object, /) -> object:
        """Return a copy of a structure with secret values replaced, at any depth."""
        ...

    def redact_text(self, text: str, /) -> str:
        """Return the text with secrets inside it replaced."""
        ...


class LimitStatus(Protocol):
    """One limit inside a decision, for header fields."""

    @property
    def name(self) -> str:
        """Name of the limit, unique in its group."""
        ...

    @property
    def quota(self) -> int:
        """Hits allowed in one window."""
        ...

    @property
    def window(self) -> float:
        """Length of the window in seconds."""
        ...


class LimitDecision(Protocol):
    """The answer of a limiter; true when the hit is allowed."""

    def __bool__(self) -> bool: ...

    @property
    def allowed(self) -> bool:
        """Whether the hit is allowed."""
        ...

    @property
    def limits(self) -> Sequence[LimitStatus]:
        """The limits of the group, in the order given."""
        ...

    @property
    def remaining(self) -> Sequence[int]:
        """Hits left for each limit, in the same order."""
        ...

    @property
    def reset_after(self) -> Sequence[float]:
        """Seconds until each limit is fresh again, in the same order."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same hit would be allowed; ``None`` when it was allowed."""
        ...


class Limiter(Protocol):
    """Counts hits against the named limits of a group."""

    def hit(self, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Take ``cost`` hits of ``key`` in ``group`` if all limits allow it; otherwise take none."""
        ...


class OutgoingAlert(Protocol):
    """An alert in the form in which it leaves the process."""

    @property
    def id(self) -> str:
        """The same for every try, so that copies can be recognised."""
        ...

    @property
    def subject(self) -> str:
        """One line that tells what it is about."""
        ...

    @property
    def text(self) -> str:
        """All of it as plain text."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields of the e-mail or of the HTTP request."""
        ...

    @property
    def body(self) -> bytes:
        """What is sent: a whole e-mail, or a JSON document."""
        ...


class Transport(Protocol):
    """Delivers one rendered alert, within seconds; raises when it could not."""

    def send(self, message: OutgoingAlert, /) -> None:
        """Deliver the message, or raise ``DeliveryError``, which says whether trying again makes sense."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...


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
        ended: empty while the session lives, else why it ended: ``idle``, ``absolute`` or ``revoked``.
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

        Returns the keys of the sessions that were ended for the limit.
        """
        ...

    def rotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Move a living session to a new key and end the old one; ``None`` when it does not live."""
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


class StoredFactor(NamedTuple):
    """The record of one user's second factor, as a store keeps it.

    Attributes:
        version: changes with every write.
        data: the record; opaque to the store.
    """

    version: str
    data: bytes


class TwoFactorStore(Protocol):
    """Keeps second factors; see ``mks_hardening.testing`` for the contract suite every store must pass.

    One opaque record a user, changed by compare-and-set. Every method raises ``BackendUnavailableError`` when the
    store did not answer; a record must never be dropped by itself (no expiry, no eviction).
    """

    def load(self, user_id: str, /) -> StoredFactor | None:
        """The record of a user as last written, or ``None``."""
        ...

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write a record (``None`` removes it) if its version is still the expected one (``None``: no record).

        Atomic. ``version`` is a new random text for what is written; a write that finds it in place already is a
        repetition and true, so that a write whose answer was lost may be sent again.
        """
        ...

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """Some user ids, about ``limit``, and the cursor to go on with; ``None`` at the end.

        Every user that has a record from the first call to the last is seen at least once.
        """
        ...

    def ping(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...
