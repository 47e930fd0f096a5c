"""The generation of a namespace: every entry has it, so that a new one invalidates all entries at once.

It is stored under the name of a tag that callers cannot have, and entries have it as a tag: processes of earlier
releases check it like any other tag. Reading it with every value would make each hit more expensive, so a process
uses what it has read for ``KNOWN_FOR`` seconds, and ``clear`` waits that long before it returns: a read that begins
after ``clear`` has returned never gets an older entry.

Entries of earlier releases have no generation; they are valid until the first ``clear`` of this release.
"""

from __future__ import annotations

import secrets
from typing import Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.cache._entry import CacheEntry

__all__ = ["KNOWN_FOR", "KnownGeneration", "new_generation"]

KNOWN_FOR: Final = 0.02
"""Seconds for which a process relies on the generation that it has read."""

_BYTES: Final = 8  # as all versions of tags
_FIRST: Final = 0


def new_generation(*, first: bool) -> bytes:
    """Return a random generation: the first one of a namespace, or a later one, which excludes older entries."""
    return bytes((_FIRST if first else 1,)) + secrets.token_bytes(_BYTES - 1)


class KnownGeneration:
    """The generation as this process knows it. State without I/O; each step is atomic.

    Threads may receive responses in another order than Redis has sent them. That there was no generation never
    replaces a known one: entries that have just been stored would not be of the known generation, and values would
    be computed a second time.
    """

    __slots__ = ("_absent_until", "_known")

    def __init__(self) -> None:
        self._known: tuple[bytes | None, float] = (None, 0.0)
        self._absent_until = 0.0

    @property
    def is_current(self) -> bool:
        """Whether it is known well enough for a read that begins now."""
        known, until = self._known
        # Not the clock of the cache, which a test may have stopped: other processes wait by real time.
        return SYSTEM_CLOCK.monotonic() < (self._absent_until if known is None else until)

    @property
    def value(self) -> bytes | None:
        """What was read last; None if Redis never had any."""
        return self._known[0]

    def learn(self, value: bytes | None, *, asked_at: float) -> None:
        """Remember what Redis has returned to a command that was sent after ``asked_at``."""
        until = asked_at + KNOWN_FOR
        if value is None or len(value) != _BYTES:  # a damaged one is replaced by the next computation
            self._absent_until = until
        elif until >= self._known[1]:
            self._known = (value, until)

    def forget(self) -> None:
        """Read it again next time; a read that is under way still counts as one before."""
        self._known, self._absent_until = (self._known[0], 0.0), 0.0

    def admits(self, entry: CacheEntry) -> bool:
        """Return whether an entry is of the known generation."""
        made, known = entry.generation, self._known[0]
        return made == known if made is not None else known is None or known[0] == _FIRST
