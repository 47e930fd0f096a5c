"""Hits of several rate limits for one request or call: all of them are counted, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RequestHits", "hits_of_request"]

_KEY: Final = "mks_hardening.taken_hits"
"""Key of a request's hits in its WSGI environ or ASGI scope."""


class _Reservation(Protocol):
    @property
    def decision(self) -> LimitDecision: ...

    def cancel(self) -> None: ...

    async def acancel(self) -> None: ...


class RequestHits:
    """Hits counted so far for one request or call; a rejection by any limit cancels all of them.

    Otherwise an earlier limit would be charged for requests that a later one rejects: one client, rejected by its
    own limit, would use up a limit that all clients share.

    A limiter without ``reserve`` cannot cancel hits, so its hits remain.
    """

    __slots__ = ("_reservations",)

    def __init__(self) -> None:
        self._reservations: list[_Reservation] = []

    def take(self, limiter: Limiter, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Count the hits of one limit, or cancel those of all limits before it."""
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

    async def atake(self, limiter: Limiter, group: str, key: str, *, cost: int = 1) -> LimitDecision:
        """Asynchronous ``take``; a limiter without asynchronous methods is called in a worker thread."""
        areserve: Any = getattr(limiter, "areserve", None)
        ahit: Any = getattr(limiter, "ahit", None)
        if areserve is not None:
            reservation: _Reservation = await areserve(group, key, cost=cost, recheck=False)
            decision = reservation.decision
            if decision.allowed:
                self._reservations.append(reservation)
        elif ahit is not None:
            decision = await ahit(group, key, cost=cost)
        else:
            import asyncio  # on use: importing the names of this package loads nothing heavy

            return await asyncio.to_thread(self.take, limiter, group, key, cost=cost)
        if not decision.allowed:
            while self._reservations:
                await self._reservations.pop().acancel()
        return decision


def hits_of_request(environ: dict[str, Any]) -> RequestHits:
    """Return the hits of a request, shared by all middleware and views."""
    found: RequestHits | None = environ.get(_KEY)
    if found is None:
        found = environ[_KEY] = RequestHits()
    return found
