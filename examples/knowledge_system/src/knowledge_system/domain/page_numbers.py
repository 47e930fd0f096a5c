"""Which numbers stand below a list: pure."""

from __future__ import annotations

__all__ = ["pages"]

_AROUND = 2


def pages(total: int, number: int, *, size: int, most: int) -> list[int]:
    """The first page, the last one and those around this one; 0 stands for those left out. None for one page.

    Args:
        total: rows of the list.
        number: of the page that is shown.
        size: rows of a page.
        most: pages that have a number.
    """
    last = min(most, -(-total // size))
    if last < 2:
        return []
    shown = {1, last, *range(max(1, number - _AROUND), min(last, number + _AROUND) + 1)}
    told: list[int] = []
    for one in sorted(shown):
        if told and one - told[-1] == 2:
            told.append(one - 1)
        elif told and one - told[-1] > 2:
            told.append(0)
        told.append(one)
    return told
