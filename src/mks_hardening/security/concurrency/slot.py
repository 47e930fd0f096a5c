"""A slot of a concurrency limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from mks_hardening._core.operations import Op, arun, run

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Slot"]


class _Owner(Protocol):
    def release_slot(self, slot: Slot) -> Op[None]: ...

    def renew_slot(self, slot: Slot) -> Op[bool]: ...


class Slot:
    """The result of ``ConcurrencyLimiter.acquire``: true if the slot was acquired.

    It is held until ``release`` is called or this object is garbage collected; a ``with`` or ``async with`` block
    releases it. The limiter renews its lease while it is held.

    Attributes:
        limit: name of the limit.
        held: how many slots were held at that time, this one included, as far as this process knows.
        retry_after: after a refusal, seconds until the first lease of another holder would expire, if known. A slot
            may be released sooner, and its lease may be renewed.
        lost: whether the lease expired for a while, because the process was suspended or the storage lost its data:
            another holder may have taken the slot in that time. The slot is counted again now.
    """

    __slots__ = (
        "__weakref__", "_got", "_owner", "held", "known", "limit", "lost", "place", "retry_after", "token",
    )  # fmt: skip

    def __init__(
        self, owner: _Owner, *, limit: str, place: str, token: str, held: int, known: bool = False
    ) -> None:
        self._owner = owner
        self._got = True
        self.limit: str = limit
        self.place: str = place
        self.token: str = token
        self.held: int = held
        self.known: bool = known
        self.retry_after: float | None = None
        self.lost: bool = False

    @classmethod
    def refused(cls, owner: _Owner, *, limit: str, held: int, retry_after: float | None) -> Slot:
        """Return a slot that was not acquired."""
        slot = cls(owner, limit=limit, place="", token="", held=held)
        slot._got = False
        slot.retry_after = retry_after
        return slot

    def release(self) -> None:
        """Release the slot; calling it twice, or on a refused slot, is safe."""
        if self._give_up():
            run(self._owner.release_slot(self))

    async def arelease(self) -> None:
        """``release`` for asyncio."""
        if self._give_up():
            await arun(self._owner.release_slot(self))

    def renew(self) -> bool:
        """Renew the lease now, as the limiter does periodically; return whether the slot was held without a gap."""
        return self._got and run(self._owner.renew_slot(self))

    async def arenew(self) -> bool:
        """``renew`` for asyncio."""
        return self._got and await arun(self._owner.renew_slot(self))

    def _give_up(self) -> bool:
        got, self._got = self._got, False
        return got

    def __bool__(self) -> bool:
        return self._got

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.arelease()

    def __repr__(self) -> str:
        return f"Slot({self.limit!r}, {'held' if self._got else 'not held'})"
