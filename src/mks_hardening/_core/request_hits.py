"""Hits of several rate limits for one request or call: all of them are counted, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from mks_hardening._core.checks import instance, whole_number
from mks_hardening._core.function_errors import log_function_error
from mks_hardening._core.response_costs import PendingCost, ResponseCosts
from mks_hardening.exceptions import BackendUnavailableError, MksHardeningError

if TYPE_CHECKING:
    from mks_hardening._core.response_costs import FinalCost
    from mks_hardening.protocols import LimitDecision, Limiter

__all__ = ["RequestHits", "costs_of_request", "hits_of_request", "set_request_cost"]

_KEY: Final = "mks_hardening.taken_hits"
"""Key of a request's hits in its WSGI environ or ASGI scope."""


class _ReservedHits(Protocol):
    @property
    def decision(self) -> LimitDecision: ...

    def cancel(self) -> None: ...

    async def acancel(self) -> None: ...


class RequestHits:
    """Hits counted so far for one request or call; a rejection by any limit cancels all of them.

    Otherwise an earlier limit would be charged for requests that a later one rejects: one client, rejected by its
    own limit, would use up a limit that all clients share.

    A limiter without ``reserve`` cannot cancel hits, so its hits remain.

    Attributes:
        costs: hits whose number is corrected when the response has ended.
    """

    __slots__ = ("_reservations", "costs")

    def __init__(self) -> None:
        self._reservations: list[_ReservedHits] = []
        self.costs: ResponseCosts | None = None

    def hit(
        self, limiter: Limiter, group: str, key: str, *, cost: int = 1, final_cost: FinalCost | None = None
    ) -> LimitDecision:
        """Count the hits of one limit, or cancel those of all limits before it.

        Args:
            limiter: the limiter; with ``final_cost`` it has ``reserve``.
            group: group of the limiter.
            key: key of the hits.
            cost: number of hits.
            final_cost: takes the response when it has ended, and returns the final number of hits.

        Raises:
            BackendUnavailableError: the limiter raised an error, which is logged.
        """
        try:
            reserve: Any = getattr(limiter, "reserve", None)
            if reserve is None:
                decision = limiter.hit(group, key, cost=cost)
            else:
                reservation: _ReservedHits = reserve(group, key, cost=cost, recheck=False)
                decision = reservation.decision
                if decision.allowed:
                    self._reservations.append(reservation)
                    if final_cost is not None:
                        self._costs().add(PendingCost(reservation, limiter, group, key, cost, final_cost))
            if not decision.allowed:
                if self.costs is not None:
                    self.costs.clear()
                while self._reservations:
                    self._reservations.pop().cancel()
        except Exception as error:  # noqa: BLE001 - a custom limiter may raise anything
            raise _failure(limiter, error) from None
        return decision

    async def ahit(
        self, limiter: Limiter, group: str, key: str, *, cost: int = 1, final_cost: FinalCost | None = None
    ) -> LimitDecision:
        """Asynchronous ``hit``; a limiter without asynchronous methods is called in a worker thread."""
        try:
            areserve: Any = getattr(limiter, "areserve", None)
            if areserve is not None:
                reservation: _ReservedHits = await areserve(group, key, cost=cost, recheck=False)
                decision = reservation.decision
                if decision.allowed:
                    self._reservations.append(reservation)
                    if final_cost is not None:
                        self._costs().add(PendingCost(reservation, limiter, group, key, cost, final_cost))
            elif final_cost is None and (ahit := getattr(limiter, "ahit", None)) is not None:
                decision = await ahit(group, key, cost=cost)
            else:
                import asyncio  # on use: importing the names of this package loads nothing heavy

                return await asyncio.to_thread(
                    self.hit, limiter, group, key, cost=cost, final_cost=final_cost
                )
            if not decision.allowed:
                if self.costs is not None:
                    self.costs.clear()
                while self._reservations:
                    await self._reservations.pop().acancel()
        except Exception as error:  # noqa: BLE001 - a custom limiter may raise anything
            raise _failure(limiter, error) from None
        return decision

    def _costs(self) -> ResponseCosts:
        if self.costs is None:
            self.costs = ResponseCosts()
        return self.costs

    def set_handler_cost(self, cost: int) -> None:
        """Set the number of hits that the handler of the request reports."""
        self._costs().handler_cost = cost


def _failure(limiter: Limiter, error: Exception) -> MksHardeningError:
    """Return what the callers of ``RequestHits`` handle, in place of an error of a custom limiter."""
    if isinstance(error, MksHardeningError):
        return error
    log_function_error(limiter, error, parameter="limiter", otherwise="the request is refused with 503")
    return BackendUnavailableError("limiter", "error", operation="hit")


def costs_of_request(environ: dict[str, Any]) -> ResponseCosts | None:
    """Return the costs that are to be corrected when the response ends; ``None`` if there are none so far."""
    found: RequestHits | None = environ.get(_KEY)
    return found.costs or None if found is not None else None


def hits_of_request(environ: dict[str, Any]) -> RequestHits:
    """Return the hits of a request, shared by all middleware and views."""
    found: RequestHits | None = environ.get(_KEY)
    if found is None:
        found = environ[_KEY] = RequestHits()
    return found


def set_request_cost(request: dict[str, Any], cost: int) -> None:
    """Report what a request costs, for example the rows it has returned; for ``final_cost`` of rate limits.

    ``final_cost`` gets the number as ``LimitedResponse.handler_cost``. Call it before the end of the response.

    Args:
        request: the WSGI environ or ASGI scope: ``request.environ`` in Flask, ``request.META`` in Django under
            WSGI, ``request.scope`` in Django under ASGI, FastAPI and Starlette.
        cost: number of hits; the last call counts.

    Raises:
        ConfigurationError: ``request`` is not a dictionary, or ``cost`` not a whole number of at least 0.
    """
    instance(request, dict, parameter="request")
    hits_of_request(request).set_handler_cost(whole_number(cost, parameter="cost", minimum=0))
