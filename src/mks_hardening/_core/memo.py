"""Bounded dictionaries: the results of a pure function, and the values that were stored last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar, cast

__all__ = ["Memo", "drop_oldest"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(dict[K, V]):
    """Dictionary that computes missing values: ``memo[question]`` costs one lookup if the value is cached.

    Keys come from clients, so the number of entries and the length of each key are limited. A full cache is
    cleared: that is cheaper than tracking the order on every hit, and a flood of new keys costs no more than having
    no cache.

    Args:
        answer: the function to cache.
        entries: maximum number of entries.
        longest: maximum number of characters or bytes of a key that is cached.
    """

    __slots__ = ("_answer", "_entries", "_longest")

    def __init__(self, answer: Callable[[K], V], *, entries: int = 4096, longest: int = 512) -> None:
        super().__init__()
        self._answer = answer
        self._entries = entries
        self._longest = longest

    def __missing__(self, question: K) -> V:
        answer = self._answer(question)
        if _length(question) <= self._longest:
            if len(self) >= self._entries:
                self.clear()
            self[question] = answer
        return answer


def drop_oldest(values: OrderedDict[K, V], most: int) -> None:
    """Drop the oldest entries beyond ``most``.

    It takes no lock: threads that write at the same time may lose an entry.
    """
    while len(values) > most:
        with suppress(KeyError):  # another thread has emptied it
            values.popitem(last=False)


def _length(question: object) -> int:
    if isinstance(question, str | bytes):
        return len(question)
    return sum(map(_length, cast("tuple[object, ...]", question))) if isinstance(question, tuple) else 0
