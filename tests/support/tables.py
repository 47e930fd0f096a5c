"""Tables of hundreds of rows in one test, because pytest needs some milliseconds per test case."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_MOST = 10


def faulty_rows(
    rows: Iterable[T], faults: Callable[[T], object], *, name: Callable[[T], str] = str
) -> dict[str, object]:
    """Return the errors of the failed rows, by the names of the rows; a test asserts that it is empty.

    Args:
        rows: the rows.
        faults: returns something true for a row that is wrong; an exception, or a failed assertion, is wrong too.
        name: the name of a row in the failure of the test.

    Raises:
        ValueError: there are no rows.
    """
    found: dict[str, object] = {}
    table = list(rows)
    if not table:
        raise ValueError("a table without rows shows nothing")
    for row in table:
        try:
            wrong = faults(row)
        except Exception:  # noqa: BLE001 - the other rows are looked at as well
            wrong = traceback.format_exc()
        if wrong:
            found[name(row)] = wrong
        if len(found) == _MOST:  # one mistake often breaks all of them
            break
    return found
