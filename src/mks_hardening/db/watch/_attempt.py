"""Attempts at a transaction: what one sends that is run again is not what the code asks of the database."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

__all__ = ["TransactionAttempt", "attempt", "current_attempt"]


class TransactionAttempt:
    """One call of a retried function.

    Attributes:
        is_repeated: whether the function was called again after it.
    """

    __slots__ = ("_outer", "is_repeated")

    def __init__(self, outer: TransactionAttempt | None) -> None:
        self._outer = outer
        self.is_repeated: bool = False

    @property
    def counts(self) -> bool:
        """Whether neither this attempt nor one around it was repeated."""
        return not self.is_repeated and (self._outer is None or self._outer.counts)


_current: Final[ContextVar[TransactionAttempt | None]] = ContextVar("mks_hardening.db.attempt", default=None)


def current_attempt() -> TransactionAttempt | None:
    """The attempt that this code runs in."""
    return _current.get()


@contextmanager
def attempt() -> Generator[TransactionAttempt]:
    """Run one attempt."""
    made = TransactionAttempt(_current.get())
    token = _current.set(made)
    try:
        yield made
    finally:
        with suppress(ValueError):  # a coroutine that is dropped is closed in another context
            _current.reset(token)
