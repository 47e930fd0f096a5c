"""Hits that several limits take for one request or call: all of them or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RequestHits", "hits_of_request"]

_KEY: Final = "mks_hardening.taken_hits"
"""Where the hits of a request stand in its WSGI environ."""


class _Reservation(Protocol):
    @property
    def decision(self) -> LimitDecision: ...

    def cancel(self) -> None: ...

    async def acancel(self) -> None: ...


class RequestHits:
    """The hits that one request or call has taken so far; a refusal by any limit gives all of them back.

    Otherwise the limit that is asked first would pay for what a later one refuses: one client, refused by its own
    limit, would use up a limit that all clients share.

    A limiter without ``reserve`` cannot give hits back, so its hits stay.
    """

    __slots__ = ("_reservations",)

    def __init__(self) -> None:
        self._reservations: list[_Reservation] = []

    def take(self, limiter: Limiter, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Take the hits of one limit, or give back those of all limits before it."""
        reserve: Any = getattr(limiter, "reserve", None)
        if reserve is None:
            decision = limiter.hit(group, key, cost=cost)
        else:
            reservation: _Reservation = reserve(group, key, cost=cost, recheck=False)
            decision = reservation.decision
            if decision.allowed:
                self._reservations.append(reservation)
        if not decision.allowed:
            while self._reservations:
                self._reservations.pop().cancel()
        return decision

    async def atake(self, limiter: Any, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """``take`` for asyncio, for a limiter with ``areserve``."""
        reservation: _Reservation = await limiter.areserve(group, key, cost=cost, recheck=False)
        if reservation.decision.allowed:
            self._reservations.append(reservation)
        else:
            while self._reservations:
                await self._reservations.pop().acancel()
        return reservation.decision


def hits_of_request(environ: dict[str, Any]) -> RequestHits:
    """The hits of a request, whatever wrappers and views have taken them."""
    found: RequestHits | None = environ.get(_KEY)
    if found is None:
        found = environ[_KEY] = RequestHits()
    return found
