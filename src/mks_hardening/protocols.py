"""What a user may implement, and where the areas meet without knowing each other.

Structural types only: nothing here is to be inherited from, and importing this module loads nothing third-party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Clock",
    "LimitDecision",
    "LimitStatus",
    "Limiter",
    "Observer",
    "Redactor",
    "RedisLike",
    "SessionStore",
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


class Transport(Protocol):
    """Delivers one rendered alert; raises when it could not."""

    def send(self, message: Any, /) -> None:
        """Deliver the message or raise."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...


class SessionStore(Protocol):
    """Keeps sessions; see ``mks_hardening.testing`` for the contract suite every store must pass."""

    def ping(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...


class TwoFactorStore(Protocol):
    """Keeps second factors; see ``mks_hardening.testing`` for the contract suite every store must pass."""

    def load(self, user_id: str, /) -> Mapping[str, Any] | None:
        """The record of a user, or ``None``."""
        ...
