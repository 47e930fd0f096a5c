"""The last values known from a server, for use while it is unavailable."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TypeVar

__all__ = ["LastKnown"]

K = TypeVar("K")
V = TypeVar("V")


class LastKnown(OrderedDict[K, V]):
    """A bounded dictionary that drops its oldest entries; each value says itself when it was obtained.

    Reading and writing are those of ``OrderedDict``, because they are on the path of every call. Writers call
    ``trim`` afterwards. No lock is needed: threads that write at the same time may lose an entry, and then know
    less during the next outage.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def trim(self) -> None:
        """Drop the oldest entries beyond the maximum."""
        while len(self) > self._most:
            with suppress(KeyError):  # another thread has emptied it
                self.popitem(last=False)
