"""Keys that the shared storage has just refused: no round trip while they are blocked anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening.security.rate_limits.limit import Decision

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["ExhaustedKeys"]

_TRUSTED_FOR: Final = 1.0
"""Seconds a refusal is trusted at most: another process may have reset the key, or given hits back."""
_MOST_KEYS: Final = 10_000


class _Refusal(NamedTuple):
    decision: Decision
    cost: int
    at: float
    until: float


class ExhaustedKeys:
    """Refusals of the last moment, by group and key.

    Without a lock: every change is one step of a dictionary, and a refusal that is lost costs one round trip.
    """

    __slots__ = ("_clock", "_refusals")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: dict[tuple[str, str], _Refusal] = {}

    def remember(self, group: str, key: str, cost: int, decision: Decision) -> None:
        """Keep a refusal until the hit would fit, or for a moment."""
        if decision.retry_after is None:
            return
        # All at once: finding the oldest would take a lock, and each costs one round trip at most.
        if len(self._refusals) >= _MOST_KEYS:
            self._refusals.clear()
        now = self._clock.monotonic()
        until = now + min(decision.retry_after, _TRUSTED_FOR)
        self._refusals[group, key] = _Refusal(decision, cost, now, until)

    def find(self, group: str, key: str, cost: int) -> Decision | None:
        """The refusal of a hit that cannot fit yet, with the times that are left.

        One of another cost would fit at another time.
        """
        refusal = self._refusals.get((group, key))
        if refusal is None or cost != refusal.cost:
            return None
        now = self._clock.monotonic()
        if now >= refusal.until:
            self.forget(group, key)
            return None
        past, old = now - refusal.at, refusal.decision
        return Decision(
            allowed=False,
            limits=old.limits,
            remaining=old.remaining,
            reset_after=tuple(max(0.0, reset - past) for reset in old.reset_after),
            retry_after=(old.retry_after or 0.0) - past,
            breached=old.breached,
        )

    def forget(self, group: str, key: str) -> None:
        """Ask the storage again."""
        self._refusals.pop((group, key), None)
