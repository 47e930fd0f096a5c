"""Cache entries, and leases for values that are being computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["MAX_DEFERRED_LEASE", "CacheEntry", "ComputeLease"]

MAX_DEFERRED_LEASE: Final = 30.0
"""Maximum seconds between ``begin`` and ``finish``: a body that is read slowly must not hold the lease for ever."""


class CacheEntry:
    """A value with its expiry on the wall clock, and the versions that its tags had when it was made."""

    __slots__ = ("expires_at", "fresh_until", "tags", "value")

    def __init__(
        self, value: Any, *, fresh_until: float, expires_at: float, tags: Mapping[str, bytes]
    ) -> None:
        self.value: Any = value
        self.fresh_until: float = fresh_until
        self.expires_at: float = expires_at
        self.tags: Mapping[str, bytes] = tags


class ComputeLease:
    """The right to store a computed value; void as soon as the key is written or invalidated.

    Keep a reference to the lease while computing: it is renewed through a weak reference, so that an abandoned
    lease (a cancelled coroutine, a response body that is never read) ends by itself.

    Attributes:
        token: identifies the lease in the store.
        tags: versions of the tags when the lease was acquired.
        former: the fresh entry at the time the lease was acquired, if any. It never contains a value that was
            invalidated before, and a later invalidation voids the lease.
    """

    __slots__ = ("__weakref__", "former", "tags", "token")

    def __init__(self, token: object, tags: Mapping[str, bytes], former: CacheEntry | None = None) -> None:
        self.token: object = token
        self.tags: Mapping[str, bytes] = tags
        self.former: CacheEntry | None = former
