"""A cache that stores nothing: for tests, and to switch caching off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op
from mks_hardening.cache._compute_lease import ComputeLease
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.compute._singleflight import COMPUTE_WAIT

__all__ = ["NullCache"]


class NullCache(BaseCache):
    """Stores nothing; callers that request one key at the same time still share one computation."""

    def __init__(self, *, namespace: str = "null") -> None:
        super().__init__(
            _NullStore(),
            namespace=namespace,
            default_ttl=60,
            compute_wait=COMPUTE_WAIT,
            jitter=0,
            clock=SYSTEM_CLOCK,
        )

    def __repr__(self) -> str:
        return "NullCache()"


class _NullStore:
    budget = None
    pending = 0

    def peek(self, _key: str) -> Any:
        return MISSING

    def load(self, keys: Sequence[str], _tags: Sequence[str] = ()) -> Op[list[CacheEntry | None]]:
        yield from ()
        return [None] * len(keys)

    def load_original(self, _key: str) -> Op[CacheEntry | None]:
        yield from ()
        return None

    def save(self, _values: Mapping[str, tuple[object, float]], _tags: Sequence[str]) -> Op[None]:
        yield from ()

    def acquire(
        self,
        _key: str,
        _tags: Sequence[str],
        *,
        wait: float = 0,  # noqa: ARG002 - part of the interface
    ) -> Op[CacheEntry | ComputeLease | None]:
        yield from ()
        return ComputeLease(None, {})

    def acquire_many(self, keys: Sequence[str], _tags: Sequence[str]) -> Op[dict[str, ComputeLease]]:
        yield from ()
        return {key: ComputeLease(None, {}) for key in keys}

    def commit_many(self, _computed: Mapping[str, tuple[ComputeLease, CacheEntry]]) -> Op[list[str]]:
        yield from ()
        return []

    def commit(self, _key: str, _lease: ComputeLease, _entry: CacheEntry) -> Op[bool]:
        yield from ()
        return True

    def release(self, _key: str, _lease: ComputeLease) -> Op[None]:
        yield from ()

    def remove(self, _keys: Sequence[str]) -> Op[int]:
        yield from ()
        return 0

    def remove_matching(self, _pattern: str) -> Op[int]:
        yield from ()
        return 0

    def matching(self, _pattern: str, _most: int | None) -> Op[list[str]]:
        yield from ()
        return []

    def void_tags(self, _tags: Sequence[str]) -> Op[None]:
        yield from ()

    def void_all(self) -> Op[None]:
        yield from ()

    def ping(self) -> Op[bool]:
        yield from ()
        return True

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass
