"""What is kept of a value, and the permission to keep one that is being computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Entry", "Lease"]


class Entry:
    """A value with the times it holds for, on the wall clock, and the versions of its tags when it was made."""

    __slots__ = ("expires_at", "fresh_until", "tags", "value")

    def __init__(
        self, value: Any, *, fresh_until: float, expires_at: float, tags: Mapping[str, bytes]
    ) -> None:
        self.value: Any = value
        self.fresh_until: float = fresh_until
        self.expires_at: float = expires_at
        self.tags: Mapping[str, bytes] = tags


class Lease:
    """Permission to keep one computed value; void as soon as the key is written or invalidated.

    Whoever computes must hold the object: what keeps leases alive knows them weakly, so that one whose holder has
    gone (an abandoned coroutine, a body nobody reads) ends by itself.
    """

    __slots__ = ("__weakref__", "tags", "token")

    def __init__(self, token: object, tags: Mapping[str, bytes]) -> None:
        self.token: object = token
        self.tags: Mapping[str, bytes] = tags
