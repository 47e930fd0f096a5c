"""Removal of repeated list items and groups, so that the length of a list does not affect the fingerprint.

Equal groups share a number, so that a comparison costs the same at any nesting depth and every token is examined a
bounded number of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

__all__ = ["shorten"]

# A token or the number of a group.
Element: TypeAlias = "str | int"

_OPENING: Final = frozenset({"(", "["})
_CLOSING: Final = frozenset({")", "]"})


class _Frame:
    """A group that is being read, or the whole statement."""

    __slots__ = ("elements", "is_list", "item")

    def __init__(self, elements: list[Element], *, is_list: bool) -> None:
        self.elements = elements
        self.is_list = is_list
        self.item = len(elements)

    def end_item(self) -> None:
        """Drop the last item and the comma before it if the elements before the comma end with the same item."""
        if self.is_list:
            self._drop_repeated(self.item)
            self.item = len(self.elements) + 1

    def add_group(self, group: int) -> None:
        self.elements.append(group)
        self._drop_repeated(len(self.elements) - 1)

    def _drop_repeated(self, start: int) -> None:
        elements = self.elements
        length = len(elements) - start
        before = start - 1 - length
        follows = length > 0 and before >= 0 and elements[start - 1] == ","
        if follows and elements[before : start - 1] == elements[start:]:
            del elements[start - 1 :]


def shorten(tokens: Sequence[str]) -> Sequence[str]:
    """Remove repeated items of lists (``IN (…)``, arrays) and repeated groups from the tokens."""
    if _OPENING.isdisjoint(tokens):
        return tokens
    numbers: dict[tuple[Element, ...], int] = {}
    groups: list[tuple[Element, ...]] = []
    frames = [_Frame([], is_list=False)]
    for piece in tokens:
        frame = frames[-1]
        if piece in _OPENING:
            frames.append(_Frame([piece], is_list=piece == "[" or frame.elements[-1:] == ["in"]))
        elif piece in _CLOSING and len(frames) > 1:
            frame.end_item()
            frames.pop()
            group = (*frame.elements, piece)
            number = numbers.setdefault(group, len(groups))
            if number == len(groups):
                groups.append(group)
            frames[-1].add_group(number)
        else:
            if piece == ",":
                frame.end_item()
            frame.elements.append(piece)
    return _flat([element for frame in frames for element in frame.elements], groups)


def _flat(elements: list[Element], groups: list[tuple[Element, ...]]) -> list[str]:
    out: list[str] = []
    waiting = elements[::-1]
    while waiting:
        element = waiting.pop()
        if isinstance(element, str):
            out.append(element)
        else:
            waiting += groups[element][::-1]
    return out
