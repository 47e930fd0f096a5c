"""A slot, as whoever holds it sees it."""

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
    """What ``ConcurrencyLimiter.acquire`` answers: true where a slot was got.

    It is held until ``release``, or until this object is gone; a ``with`` or ``async with`` block releases it. The
    limiter renews its lease as long as it is held.

    Attributes:
        limit: name of the limit.
        held: how many slots were held at that moment, this one included; as far as this process knows.
        retry_after: seconds until the first lease of others runs out, for a refusal where that is known; one that
            is released is free sooner, and one that is renewed stays.
        lost: whether the lease ran out for a while, as it does where the process stood still, or the storage lost
            its data: another may have the slot as well. It is counted again by now.
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
        """No slot."""
        slot = cls(owner, limit=limit, place="", token="", held=held)
        slot._got = False
        slot.retry_after = retry_after
        return slot

    def release(self) -> None:
        """Let others have it; harmless when called twice, and for one that was refused."""
        if self._give_up():
            run(self._owner.release_slot(self))

    async def arelease(self) -> None:
        """``release`` for asyncio."""
        if self._give_up():
            await arun(self._owner.release_slot(self))

    def renew(self) -> bool:
        """Put off the end of its lease now, as the limiter does by itself; whether it was held all the while."""
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
