"""Helpers of the contract suites."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

__all__ = ["DISTINCT_TEXTS", "UserStore", "aclosed", "at_once", "call_nth", "require"]

UserStore: TypeAlias = Any
"""A store of the user, of any class with the methods of the protocol."""

# Strings that become equal if a backend folds case, strips whitespace or normalises Unicode (NFC, NFKC).
DISTINCT_TEXTS = (
    *("name", "Name", "NAME", " name", "name ", "name\t", "name\n", "na me"),
    *("n\u00e9", "ne\u0301", "ne", "N\u00c9"),
    *("fi", "\ufb01", "\uff46\uff49", "stra\u00dfe", "strasse", "1", "\uff11", "01"),
)


def require(condition: bool, rule: str) -> None:  # noqa: FBT001 - reads like an assertion
    """Fail with the violated rule."""
    if not condition:
        raise AssertionError(rule)


def at_once(work: Callable[[int], object], *, threads: int) -> list[Any]:
    """Return the results of ``work`` in several threads that start together."""
    barrier = threading.Barrier(threads)
    results: list[Any] = [None] * threads

    def run(number: int) -> None:
        barrier.wait()
        results[number] = work(number)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def call_nth(work: Sequence[Callable[[], object]], number: int) -> object:
    """Call one of several functions."""
    return work[number]()


async def aclosed(one: object) -> None:
    """Close the resources of the running event loop, for objects with ``aclose``."""
    aclose: Callable[[], Awaitable[None]] | None = getattr(one, "aclose", None)
    if aclose is not None:
        await aclose()
