"""Page numbers below a list."""

from __future__ import annotations

_AROUND = 2


def pages(total: int, number: int, *, size: int, most: int) -> list[int]:
    """Return the first, the last and the neighbouring pages, 0 for each gap; empty if there is only one page.

    Args:
        total: rows in the list.
        number: current page.
        size: rows per page.
        most: highest page number.
    """
    last = min(most, -(-total // size))
    if last < 2:
        return []
    shown = {1, last, *range(max(1, number - _AROUND), min(last, number + _AROUND) + 1)}
    numbers: list[int] = []
    for one in sorted(shown):
        if numbers and one - numbers[-1] == 2:
            numbers.append(one - 1)
        elif numbers and one - numbers[-1] > 2:
            numbers.append(0)
        numbers.append(one)
    return numbers
