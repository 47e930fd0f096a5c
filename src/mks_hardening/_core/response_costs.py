"""Costs of a request that are known only when its response has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.function_errors import log_function_error
from mks_hardening._core.operations import arun, require_sync_result, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mks_hardening._core.operations import Op
    from mks_hardening.protocols import LimitDecision

__all__ = ["FinalCost", "LimitedResponse", "PendingCost", "ResponseCosts"]

_RESERVED: Final = "the request costs what was reserved"
_LOST: Final = "the final cost of a request could not be counted"
_MOST_TRIES: Final = 100
"""Attempts to count what fits. One that fails means that hits of others were counted since the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedResponse:
    """What is known of a response when ``final_cost`` of a rate limit is called.

    Attributes:
        status: status code; 101 for a WebSocket that was accepted.
        body_bytes: bytes of the body that the application has produced.
        complete: whether it has produced the whole body; false if the client left or the body raised an error.
        handler_cost: the number that the handler passed to ``set_request_cost``, or ``None``.
    """

    status: int
    body_bytes: int
    complete: bool
    handler_cost: int | None = None


FinalCost = Callable[[LimitedResponse], object]


class PendingCost(NamedTuple):
    """Reserved hits, and the function that decides their final number."""

    reservation: Any
    limiter: Any
    group: str
    key: str
    reserved: int
    final_cost: FinalCost


class ResponseCosts:
    """Reserved hits of one request whose number is corrected when its response has ended.

    Attributes:
        status: status code of the response; ``None`` until it begins.
        body_bytes: bytes of its body so far.
        handler_cost: see ``LimitedResponse``.
    """

    __slots__ = ("_pending", "body_bytes", "handler_cost", "status")

    def __init__(self) -> None:
        self._pending: list[PendingCost] = []
        self.status: int | None = None
        self.body_bytes = 0
        self.handler_cost: int | None = None

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, pending: PendingCost) -> None:
        """Add hits that were reserved."""
        self._pending.append(pending)

    def clear(self) -> None:
        """Forget the hits: they have been given back."""
        self._pending.clear()

    def finalize(self, *, complete: bool) -> None:
        """Correct the numbers; if the response has not begun, they stay as they are.

        A request may cost more than fits the limits, because it has been served already: what fits is counted.
        Errors are logged, not raised.

        Args:
            complete: see ``LimitedResponse``.
        """
        run(_correct(self._final_costs(complete=complete)))

    async def afinalize(self, *, complete: bool) -> None:
        """``finalize`` for asyncio; it continues if the task of the request is cancelled."""
        costs = list(self._final_costs(complete=complete))
        if costs:
            import asyncio  # on use: importing the names of this package loads nothing heavy

            task = asyncio.ensure_future(arun(_correct(costs)))
            _running.add(task)
            task.add_done_callback(_running.discard)
            await asyncio.shield(task)

    def _final_costs(self, *, complete: bool) -> Iterator[tuple[PendingCost, int]]:
        """Yield the hits whose number changes, with the final number."""
        pending, self._pending = self._pending, []
        # A client could otherwise make failed attempts free of charge by leaving before the response.
        if self.status is None or not pending:
            return
        response = LimitedResponse(
            status=self.status,
            body_bytes=self.body_bytes,
            complete=complete,
            handler_cost=self.handler_cost,
        )
        for each in pending:
            cost = _final_cost(each, response)
            if cost != each.reserved:
                yield each, cost


_running: Final[set[Any]] = set()
"""Tasks that correct hits: the event loop itself holds only weak references to tasks."""


def _correct(costs: Iterable[tuple[PendingCost, int]]) -> Op[None]:
    for pending, cost in costs:
        try:
            extra = cost - pending.reserved
            if extra < 0:
                yield _Cancel(pending)
                extra = cost
            tries = 0
            while extra > 0 and tries < _MOST_TRIES:
                extra = _rest((yield _Reserve(pending, extra)), extra)
                tries += 1
        except Exception as error:  # noqa: BLE001 - the response has been sent
            log_function_error(pending.limiter, error, parameter="limiter", otherwise=_LOST)


class _Cancel:
    """Effect that gives the reserved hits back."""

    __slots__ = ("_pending",)

    def __init__(self, pending: PendingCost) -> None:
        self._pending = pending

    def run(self) -> None:
        self._pending.reservation.cancel()

    async def arun(self) -> None:
        if hasattr(self._pending.reservation, "acancel"):
            await self._pending.reservation.acancel()
        else:
            import asyncio

            await asyncio.to_thread(self.run)


class _Reserve:
    """Effect that takes further hits; its result is the decision."""

    __slots__ = ("_cost", "_pending")

    def __init__(self, pending: PendingCost, cost: int) -> None:
        self._pending = pending
        self._cost = cost

    def run(self) -> LimitDecision:
        limiter, group, key = self._pending.limiter, self._pending.group, self._pending.key
        decision: LimitDecision = limiter.reserve(group, key, cost=self._cost).decision
        return decision

    async def arun(self) -> LimitDecision:
        limiter, group, key = self._pending.limiter, self._pending.group, self._pending.key
        if not hasattr(limiter, "areserve"):
            import asyncio

            return await asyncio.to_thread(self.run)
        decision: LimitDecision = (await limiter.areserve(group, key, cost=self._cost)).decision
        return decision


def _rest(decision: LimitDecision, tried: int) -> int:
    """Return the hits to try next after a decision on ``tried``: what fits, or nothing."""
    # A dry run allows hits that do not fit and does not count them.
    if decision.allowed and not getattr(decision, "breached", ()):
        return 0
    return min(tried - 1, min(decision.remaining, default=0))


def _final_cost(pending: PendingCost, response: LimitedResponse) -> int:
    try:
        cost = require_sync_result(pending.final_cost(response))
    except Exception as error:  # noqa: BLE001 - an error of the function must not change the cost
        log_function_error(pending.final_cost, error, parameter="final_cost", otherwise=_RESERVED)
        return pending.reserved
    if isinstance(cost, bool):
        return pending.reserved if cost else 0
    if not isinstance(cost, int) or cost < 0:
        log_function_error(pending.final_cost, None, parameter="final_cost", otherwise=_RESERVED)
        return pending.reserved
    return cost
