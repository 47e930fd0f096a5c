"""Attempts of retried transactions; statements of repeated attempts are not counted by query watchers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

__all__ = ["TransactionAttempt", "attempt", "current_attempt"]


class TransactionAttempt:
    """One call of a retried function.

    Attributes:
        is_repeated: whether the function was called again after this call.
    """

    __slots__ = ("_outer", "is_repeated")

    def __init__(self, outer: TransactionAttempt | None) -> None:
        self._outer = outer
        self.is_repeated: bool = False

    @property
    def counts(self) -> bool:
        """Whether neither this attempt nor an enclosing one was repeated."""
        return not self.is_repeated and (self._outer is None or self._outer.counts)


_current: Final[ContextVar[TransactionAttempt | None]] = ContextVar("mks_hardening.db.attempt", default=None)


def current_attempt() -> TransactionAttempt | None:
    """Attempt in which the current code runs."""
    return _current.get()


@contextmanager
def attempt() -> Generator[TransactionAttempt]:
    """Run the block as one attempt."""
    made = TransactionAttempt(_current.get())
    token = _current.set(made)
    try:
        yield made
    finally:
        with suppress(ValueError):  # an abandoned coroutine is closed in another context
            _current.reset(token)
