"""What everything has in common: clocks, observers, redaction, Redis."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Clock", "Observer", "Redactor", "RedisLike"]


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
