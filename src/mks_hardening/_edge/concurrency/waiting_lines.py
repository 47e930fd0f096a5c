"""Lines of requests that wait for slots, on plain values."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["Place", "WaitingLines"]

T = TypeVar("T")

Place = tuple[str, str]
"""Limit and key of slots."""


class WaitingLines(Generic[T]):
    """Lines of waiting requests, one for each limit and key; the first of a line gets the next slot.

    Each line has a bound of its own. With one bound for all lines, a client that waits for its own slots would take
    the places of clients that wait for a slot of all.

    Args:
        most: maximum length of a line.
    """

    __slots__ = ("_lines", "_most")

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._lines: dict[Place, deque[T]] = {}

    def has_line(self, place: Place) -> bool:
        """Return whether a request waits for this place."""
        return place in self._lines

    def join(self, place: Place, waiter: T) -> bool:
        """Put a request at the end of a line; return whether there was room."""
        line = self._lines.get(place)
        if (0 if line is None else len(line)) >= self._most:
            return False
        if line is None:
            line = self._lines[place] = deque()
        line.append(waiter)
        return True

    def leave(self, place: Place, waiter: T) -> None:
        """Remove a request from its line.

        Raises:
            ValueError: it is not in the line.
        """
        line = self._lines.get(place, deque())
        line.remove(waiter)
        if not line:
            del self._lines[place]

    def first(self, place: Place) -> T | None:
        """Return the request that gets the next slot of a place; ``None`` if nobody waits."""
        line = self._lines.get(place)
        return line[0] if line else None
