"""The interface of a cache backend; everything else is common to all caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mks_hardening._core.operations import Op
from mks_hardening.cache._compute_lease import ComputeLease
from mks_hardening.cache._entry import CacheEntry

__all__ = ["CacheStore"]


class CacheStore(Protocol):
    """Stores entries. Operations raise ``BackendUnavailableError`` during an outage, and no other error."""

    @property
    def budget(self) -> float | None:
        """Maximum seconds for all round trips of one operation together; None for a backend without round trips."""
        ...

    @property
    def pending(self) -> int:
        """Number of invalidations that the backend has not received yet."""
        ...

    def peek(self, key: str, /) -> Any:
        """Return the fresh value if it is available without a round trip; otherwise ``MISSING``."""
        ...

    def load(self, keys: Sequence[str], tags: Sequence[str] = (), /) -> Op[list[CacheEntry | None]]:
        """Return the entries that have not expired, including stale ones; ``tags`` are those expected on them."""
        ...

    def load_original(self, key: str, /) -> Op[CacheEntry | None]:
        """Return the entry as it was stored, and not a copy that expires earlier."""
        ...

    def save(self, values: Mapping[str, tuple[object, float]], tags: Sequence[str], /) -> Op[None]:
        """Store each value for its number of seconds, and void all leases on the keys."""
        ...

    def acquire(
        self, key: str, tags: Sequence[str], /, *, wait: float = 0
    ) -> Op[CacheEntry | ComputeLease | None]:
        """Return a lease to compute the value, or the fresh entry that another caller has stored.

        While another process holds the lease, wait for either for at most ``wait`` seconds, then return None.
        Without ``wait``, a lease is granted even if there is a fresh entry, which is then its ``former``.
        """
        ...

    def acquire_many(self, keys: Sequence[str], tags: Sequence[str], /) -> Op[dict[str, ComputeLease]]:
        """Return the leases to compute values of several keys; without those that other callers hold."""
        ...

    def commit_many(self, computed: Mapping[str, tuple[ComputeLease, CacheEntry]], /) -> Op[list[str]]:
        """Store computed values as ``commit`` does; return the keys whose values are not plain data."""
        ...

    def commit(self, key: str, lease: ComputeLease, entry: CacheEntry, /) -> Op[bool]:
        """Store a computed value unless its lease is void, and release the lease; return whether it is valid."""
        ...

    def release(self, key: str, lease: ComputeLease, /) -> Op[None]:
        """Release the lease without storing a value."""
        ...

    def remove(self, keys: Sequence[str], /) -> Op[int]:
        """Remove entries and void leases; return the number of entries removed."""
        ...

    def remove_matching(self, pattern: str, /) -> Op[int]:
        """Do the same for all keys that match a glob pattern."""
        ...

    def matching(self, pattern: str, most: int | None, /) -> Op[list[str]]:
        """Return the keys with a fresh value that match a glob pattern, at most that many, in any order."""
        ...

    def void_tags(self, tags: Sequence[str], /) -> Op[None]:
        """Invalidate every entry with one of the tags, including those being computed."""
        ...

    def void_all(self) -> Op[None]:
        """Invalidate every entry, including those being computed, in constant time."""
        ...

    def ping(self) -> Op[bool]:
        """Return whether the backend responds."""
        ...

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        ...

    async def aclose(self) -> None:
        """Release connections, including those of the running event loop."""
        ...
