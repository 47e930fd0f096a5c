"""What a backend has to say of itself; everything else is the same for all caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mks_hardening._core.operations import Op
from mks_hardening.cache._entry import CacheEntry, ComputeLease

__all__ = ["CacheStore"]


class CacheStore(Protocol):
    """Keeps entries. Operations raise ``BackendUnavailableError`` when it is away, and nothing else."""

    @property
    def budget(self) -> float | None:
        """Seconds that all calls of one operation may take together; None where nothing leaves the process."""
        ...

    @property
    def owed(self) -> int:
        """Invalidations the backend must still be told of."""
        ...

    def peek(self, key: str, /) -> Any:
        """The fresh value where it can be had at once, without a round trip; otherwise ``MISSING``."""
        ...

    def load(self, keys: Sequence[str], tags: Sequence[str] = (), /) -> Op[list[CacheEntry | None]]:
        """The entries that have not ended, stale ones included; ``tags`` are those the caller expects on them."""
        ...

    def save(self, values: Mapping[str, tuple[object, float]], tags: Sequence[str], /) -> Op[None]:
        """Keep values for so many seconds each, and void all leases on their keys."""
        ...

    def acquire(
        self, key: str, tags: Sequence[str], /, *, wait: float = 0
    ) -> Op[CacheEntry | ComputeLease | None]:
        """The right to compute, or the fresh entry that somebody else has made.

        While another process has the right: wait so many seconds for either, then None. Without ``wait`` an entry
        is no reason to refuse the right; it stands in the lease.
        """
        ...

    def commit(self, key: str, lease: ComputeLease, entry: CacheEntry, /) -> Op[bool]:
        """Keep what was computed unless the lease is void, and give the lease back; whether it is valid now."""
        ...

    def release(self, key: str, lease: ComputeLease, /) -> Op[None]:
        """Give the lease back without keeping anything."""
        ...

    def remove(self, keys: Sequence[str], /) -> Op[int]:
        """Remove entries and void leases; how many entries there were."""
        ...

    def remove_matching(self, pattern: str, /) -> Op[int]:
        """The same for all keys that match a glob pattern."""
        ...

    def void_tags(self, tags: Sequence[str], /) -> Op[None]:
        """Make every entry with one of the tags invalid, those that are being computed included."""
        ...

    def ping(self) -> Op[bool]:
        """Whether the backend answers."""
        ...

    def close(self) -> None:
        """Give connections back; harmless when called twice."""
        ...

    async def aclose(self) -> None:
        """The same, with those of the running event loop."""
        ...
