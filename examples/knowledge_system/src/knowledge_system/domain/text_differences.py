"""Readable differences between two texts, by line and within a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Kind = Literal["same", "added", "removed", "changed", "gap"]

# Comparing by character takes time proportional to the product of both lengths.
_LONGEST_COMPARED = 600


class DifferencePiece(NamedTuple):
    """A run of characters within a line: ``same``, ``added`` or ``removed``."""

    kind: Kind
    text: str


class Line(NamedTuple):
    """One line; ``changed`` has pieces of both texts, ``gap`` replaces omitted equal lines."""

    kind: Kind
    pieces: tuple[DifferencePiece, ...] = ()


def difference(before: str, after: str, *, context: int = 1) -> tuple[Line, ...]:
    """Return the lines of both texts in reading order; empty if they are equal.

    Args:
        before: the older text.
        after: the newer text.
        context: number of equal lines shown before and after each difference.
    """
    old, new = before.splitlines(), after.splitlines()
    if old == new:
        return ()
    lines: list[Line] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            lines.extend(_whole("same", old[i:j]))
        else:
            paired = min(j - i, m - k)
            for one, other in zip(old[i : i + paired], new[k : k + paired], strict=True):
                lines.extend(_compared(one, other))
            lines.extend(_whole("removed", old[i + paired : j]))
            lines.extend(_whole("added", new[k + paired : m]))
    return tuple(_shortened(lines, context))


def _whole(kind: Kind, texts: Sequence[str]) -> Iterator[Line]:
    return (Line(kind, (DifferencePiece(kind, text),)) for text in texts)


def _compared(old: str, new: str) -> tuple[Line, ...]:
    """Return one combined line if both are similar enough, otherwise a removed and an added line."""
    apart = (
        Line("removed", (DifferencePiece("removed", old),)),
        Line("added", (DifferencePiece("added", new),)),
    )
    if max(len(old), len(new)) > _LONGEST_COMPARED:
        return apart
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < 0.4:
        return apart
    pieces: list[DifferencePiece] = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(DifferencePiece("same", old[i:j]))
            continue
        pieces.extend(DifferencePiece(kind, text) for kind, text in _both(old[i:j], new[k:m]) if text)
    return (Line("changed", tuple(pieces)),)


def _both(old: str, new: str) -> tuple[tuple[Kind, str], tuple[Kind, str]]:
    return ("removed", old), ("added", new)


def _shortened(lines: Sequence[Line], context: int) -> Iterator[Line]:
    changed = [number for number, line in enumerate(lines) if line.kind != "same"]
    kept = {near for number in changed for near in range(number - context, number + context + 1)}
    gap = False
    for number, line in enumerate(lines):
        if number in kept:
            yield line
        elif not gap:
            yield Line("gap")
        gap = number not in kept
