"""What a ``PurgeQueue`` has to purge, and when. State without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mks_hardening.cache.cdn.purge_item import PurgeItem

__all__ = ["PurgeBacklog", "PurgeStats"]

_EVERYTHING: Final = PurgeItem("everything", "*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeStats:
    """Counts of a ``PurgeQueue`` in this process; ``queued`` is the sum of the others.

    Attributes:
        queued: accepted items, including those of ended processes found in the spool.
        done: purged items.
        merged: items that were waiting already, or that a purge of everything includes.
        dropped: items that the CDN refused, or could not purge within ``max_age`` or before the queue was closed.
        spooled: items left in the spool when the queue was closed.
        pending: items that wait or are being sent; the current number, not a total.
    """

    queued: int = 0
    done: int = 0
    merged: int = 0
    dropped: int = 0
    spooled: int = 0
    pending: int = 0


class PurgeBacklog:
    """The items that wait, oldest first, and those that are being sent.

    Args:
        window: seconds between the first item and the request.
        most: maximum number of items.
        max_age: seconds after which an item that fails is dropped.
    """

    __slots__ = ("_counts", "_max_age", "_most", "_not_before", "_sending", "_waiting", "_window")

    def __init__(self, *, window: float, most: int, max_age: float) -> None:
        self._window = window
        self._most = most
        self._max_age = max_age
        self._not_before = float("-inf")
        # Each with the time when it was accepted.
        self._waiting: dict[PurgeItem, float] = {}
        self._sending: dict[PurgeItem, float] = {}
        self._counts = dict.fromkeys(("queued", "done", "merged", "dropped", "spooled"), 0)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    @property
    def items(self) -> tuple[PurgeItem, ...]:
        """Everything that is not purged yet, oldest first."""
        return tuple(dict.fromkeys((*self._sending, *self._waiting)))

    def add(self, items: Sequence[PurgeItem], now: float) -> tuple[PurgeItem, ...] | None:
        """Accept all items, or none if they are too many; return those that did not wait yet, or None."""
        waiting = self._waiting
        new = () if _EVERYTHING in waiting else tuple({item: None for item in items if item not in waiting})
        if len(self) + len(new) > self._most and _EVERYTHING not in new:
            return None
        self._counts["queued"] += len(items)
        self._counts["merged"] += len(items) - len(new)
        # An item that is being sent is purged again: the response may have been fetched again in between.
        waiting.update(dict.fromkeys(new, now))
        self._absorb()
        return new

    def is_waiting_for_service(self, now: float) -> bool:
        """Return whether items wait because the last request failed."""
        return bool(self._waiting) and now < self._not_before

    def due(self, now: float, *, at_once: bool = False) -> bool:
        """Return whether a request may be sent now; ``at_once``: without waiting for more items."""
        if not self._waiting or self._sending or now < self._not_before:
            return False
        return at_once or now >= min(self._waiting.values()) + self._window

    def take(self) -> tuple[PurgeItem, ...]:
        """Return all items that wait; they count as being sent until ``finish``."""
        self._sending, self._waiting = self._waiting, {}
        return tuple(self._sending)

    def finish(self, failed: Iterable[PurgeItem], retry_after: float | None, now: float) -> int:
        """Record the result of the items that were taken; return how many of them were dropped.

        Args:
            failed: those that were not purged.
            retry_after: seconds until they may be sent again; None if they would be refused again.
            now: the time.
        """
        sent, self._sending = self._sending, {}
        unpurged = {item: sent[item] for item in failed if item in sent}
        again = {
            item: accepted
            for item, accepted in unpurged.items()
            if retry_after is not None and now - accepted < self._max_age
        }
        dropped = len(unpurged) - len(again)
        self._counts["done"] += len(sent) - len(unpurged)
        self._counts["dropped"] += dropped
        if again:
            self._not_before = now + (retry_after or 0.0)
            self._counts["merged"] += len(again.keys() & self._waiting.keys())
            self._waiting = {**self._waiting, **again} if _EVERYTHING in again else {**again, **self._waiting}
            self._absorb()
        return dropped

    def end(self, *, is_spooled: bool) -> int:
        """Count what is left as spooled or dropped, and forget it; return how many items these are."""
        left = len(self)
        self._waiting, self._sending = {}, {}
        self._counts["spooled" if is_spooled else "dropped"] += left
        return left

    def stats(self) -> PurgeStats:
        """Return the current counts."""
        return PurgeStats(**self._counts, pending=len(self))

    def _absorb(self) -> None:
        """Keep nothing beside a purge of everything that waits."""
        accepted = self._waiting.get(_EVERYTHING)
        if accepted is not None and len(self._waiting) > 1:
            self._counts["merged"] += len(self._waiting) - 1
            self._waiting = {_EVERYTHING: accepted}
