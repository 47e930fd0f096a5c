"""Protocols used throughout the package: clocks, observers, redactors, Redis clients."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Clock", "Observer", "Redactor", "RedisLike"]


@runtime_checkable
class Clock(Protocol):
    """Wall clock, shared with people and other hosts, and monotonic clock, which never goes back."""

    def time(self) -> float:
        """Return the wall time in seconds since 1970-01-01 UTC; it may be adjusted."""
        ...

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary start; never goes back."""
        ...


class Observer(Protocol):
    """Receives every event of ``mks_hardening.events``; must be fast and must not raise."""

    def __call__(self, event: Any, /) -> None:
        """Handle one event."""
        ...


class RedisLike(Protocol):
    """The part of a Redis client that we use; redis-py, valkey, fakeredis and minimal fakes implement it."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command and return its undecoded response (``bytes``, not ``str``)."""
        ...


class Redactor(Protocol):
    """Removes secrets from data that leaves the process."""

    def redact(self, value: object, /) -> object:
        """Return a copy of a structure with secret values replaced, at any depth."""
        ...

    def redact_text(self, text: str, /) -> str:
        """Return the text with secrets inside it replaced."""
        ...
