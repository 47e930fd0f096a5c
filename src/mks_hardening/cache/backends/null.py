"""A cache that keeps nothing: for tests, and to switch caching off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.cache.base import BaseCache
from mks_hardening.cache.effects import Op
from mks_hardening.cache.entry import Entry, Lease
from mks_hardening.protocols import Clock

__all__ = ["NullCache"]


class NullCache(BaseCache):
    """Forgets everything at once; callers that ask for one key at the same time still compute it only once."""

    def __init__(self, *, namespace: str = "null", clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(namespace=namespace, default_ttl=3600, jitter=0, clock=clock)

    def __repr__(self) -> str:
        return "NullCache()"

    def _load(self, keys: Sequence[str], tags: Sequence[str] = ()) -> Op[list[Entry | None]]:
        yield from ()
        return [None] * len(keys)

    def _save(self, entries: Mapping[str, tuple[Any, float]], tags: Sequence[str]) -> Op[None]:
        yield from ()

    def _acquire(self, key: str, tags: Sequence[str]) -> Op[Entry | Lease]:
        yield from ()
        return Lease(None, {})

    def _commit(self, key: str, lease: Lease, entry: Entry) -> Op[bool]:
        yield from ()
        return True

    def _release(self, key: str, lease: Lease) -> Op[None]:
        yield from ()

    def _remove(self, keys: Sequence[str]) -> Op[int]:
        yield from ()
        return 0

    def _remove_matching(self, pattern: str) -> Op[int]:
        yield from ()
        return 0

    def _void_tags(self, tags: Sequence[str]) -> Op[None]:
        yield from ()

    def _ping(self) -> Op[bool]:
        yield from ()
        return True
