"""Cache of keys that the shared storage has just refused, which saves a round trip while they are blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening.security.rate_limits.limit import Decision

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["ExhaustedKeys"]

_TRUSTED_FOR: Final = 1.0
"""Maximum number of seconds to trust a refusal: another process may reset the key or give hits back."""
_MOST_KEYS: Final = 10_000


class _Refusal(NamedTuple):
    decision: Decision
    cost: int
    at: float
    until: float


class ExhaustedKeys:
    """Recent refusals by group and key.

    No lock is needed: every change is a single dictionary operation, and a lost refusal costs one round trip.
    """

    __slots__ = ("_clock", "_refusals")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: dict[tuple[str, str], _Refusal] = {}

    def remember(self, group: str, key: str, cost: int, decision: Decision) -> None:
        """Store a refusal until the hit would fit, for at most one second."""
        if decision.retry_after is None:
            return
        # Clear everything: finding the oldest entry would need a lock, and each lost entry costs one round trip.
        if len(self._refusals) >= _MOST_KEYS:
            self._refusals.clear()
        now = self._clock.monotonic()
        until = now + min(decision.retry_after, _TRUSTED_FOR)
        self._refusals[group, key] = _Refusal(decision, cost, now, until)

    def find(self, group: str, key: str, cost: int) -> Decision | None:
        """Return the stored refusal of a hit that cannot fit yet, with its waiting times brought up to date.

        Only a refusal of the same cost matches: a hit of another cost would fit at another time.
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
        """Drop the refusal of a key, so that the next hit asks the storage."""
        self._refusals.pop((group, key), None)
