"""What is kept of a value, and the permission to keep one that is being computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LONGEST_ELSEWHERE", "CacheEntry", "ComputeLease"]

LONGEST_ELSEWHERE: Final = 30.0
"""Seconds a lease is held whose value comes later: a body that is read slowly must not hold it for ever."""


class CacheEntry:
    """A value with the times it holds for, on the wall clock, and the versions of its tags when it was made."""

    __slots__ = ("expires_at", "fresh_until", "tags", "value")

    def __init__(
        self, value: Any, *, fresh_until: float, expires_at: float, tags: Mapping[str, bytes]
    ) -> None:
        self.value: Any = value
        self.fresh_until: float = fresh_until
        self.expires_at: float = expires_at
        self.tags: Mapping[str, bytes] = tags


class ComputeLease:
    """Permission to keep one computed value; void as soon as the key is written or invalidated.

    Whoever computes must hold the object: what keeps leases alive knows them weakly, so that one whose holder has
    gone (an abandoned coroutine, a body nobody reads) ends by itself.

    Attributes:
        token: what the store knows it by.
        tags: their versions when it was taken.
        former: what was kept, fresh, in the moment it was taken. What an invalidation removed before is not in it,
            and one that comes later voids the lease.
    """

    __slots__ = ("__weakref__", "former", "tags", "token")

    def __init__(self, token: object, tags: Mapping[str, bytes], former: CacheEntry | None = None) -> None:
        self.token: object = token
        self.tags: Mapping[str, bytes] = tags
        self.former: CacheEntry | None = former
