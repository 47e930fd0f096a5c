"""Answers worked out once for each question and kept, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

__all__ = ["Memo"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(dict[K, V]):
    """A dictionary that computes what it lacks: ``memo[question]`` costs one look-up when it is known.

    Questions come from clients, so the number of entries and the length of each are bounded. A full memo starts
    anew: that is cheaper than order on every hit, and a flood of new questions costs no more than having no memo.

    Args:
        answer: a pure function.
        entries: how many answers are kept.
        longest: a question with more characters than this is answered and forgotten.
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


def _length(question: object) -> int:
    if isinstance(question, str):
        return len(question)
    return sum(map(_length, cast("tuple[object, ...]", question))) if isinstance(question, tuple) else 0
