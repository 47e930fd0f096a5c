"""Cache entries, as a store returns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CacheEntry"]


class CacheEntry:
    """A value with its expiry on the wall clock, and the versions that its tags had when it was made.

    ``cost`` is the number of seconds that its computation took; 0 if nobody needs it. ``generation`` is that of the
    namespace, in a store whose entries have one.
    """

    __slots__ = ("cost", "expires_at", "fresh_until", "generation", "tags", "value")

    def __init__(
        self,
        value: Any,
        *,
        fresh_until: float,
        expires_at: float,
        tags: Mapping[str, bytes],
        cost: float = 0.0,
        generation: bytes | None = None,
    ) -> None:
        self.value: Any = value
        self.fresh_until: float = fresh_until
        self.expires_at: float = expires_at
        self.tags: Mapping[str, bytes] = tags
        self.cost: float = cost
        self.generation: bytes | None = generation
