"""Where hits are counted: what the limiter asks of memory and of Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from mks_hardening.security._limits import Limit
    from mks_hardening.security._windows import Look

__all__ = ["Count", "Counters"]


class Count(NamedTuple):
    """What a backend answers: a look at each limit, and when hits were taken (``None`` if they were not)."""

    looks: Sequence[Look]
    taken_at: int | None = None


class Counters(Protocol):
    """Where hits are counted."""

    def hit(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> Count:
        """Take hits from all limits or from none."""
        ...

    def test(self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int) -> Count:
        """What ``hit`` would see, without counting."""
        ...

    def give_back(self, group: str, key: str, limits: tuple[Limit, ...], *, at: int, cost: int) -> None:
        """Uncount hits taken at that moment."""
        ...

    def reset(self, group: str, key: str) -> None:
        """Forget all hits of a key."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...
