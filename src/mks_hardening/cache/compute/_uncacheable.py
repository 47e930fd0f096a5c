"""Values that are not plain data or too large: returned but not stored, counted, with one warning per function."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from mks_hardening.cache._counters import CacheCounters
from mks_hardening.exceptions import EncodeError

__all__ = ["UncacheableValues"]

# Local functions can have any number of names; nobody reads more warnings than these.
_MOST_FUNCTIONS: Final = 1000
_logger = logging.getLogger("mks_hardening.cache")


class UncacheableValues:
    """Remembers the functions for which a warning was logged."""

    __slots__ = ("_counters", "_warned")

    def __init__(self, counters: CacheCounters) -> None:
        self._counters = counters
        self._warned: set[str] = set()

    def note(self, compute: Callable[[], object], error: EncodeError) -> None:
        """Count a value that could not be stored, and warn once per function."""
        self._counters.bypass("no data")
        name = _name(compute)
        if name not in self._warned and len(self._warned) < _MOST_FUNCTIONS:
            self._warned.add(name)
            _logger.warning("the result of %s is not cached and is computed on every call: %s", name, error)


def _name(compute: Callable[[], object]) -> str:
    function = compute.func if isinstance(compute, partial) else compute
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(function, '__module__', '?')}.{name}"
