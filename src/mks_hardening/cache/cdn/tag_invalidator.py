"""Invalidate tags in a cache and in a CDN with one call."""

from __future__ import annotations

from collections.abc import Iterable

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.checks import instance, offers
from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.store_calls import call_store
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.cache.cdn.base_cdn import BaseCDN
from mks_hardening.cache.cdn.purge_item import PurgeItem
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import ConfigurationError

__all__ = ["TagInvalidator"]

_RETRY_AFTER = 30.0


class TagInvalidator:
    """Invalidates values, functions and responses with a tag everywhere: in memory, in Redis and in a CDN.

    The cache comes first: a CDN that was purged before it would fetch the old page again. For the CDN, the
    application names the tags of a response in the field ``Cache-Tag`` (Cloudflare) or ``Surrogate-Key`` (Fastly).

    Args:
        cache: the cache; a ``TieredCache`` for memory and Redis.
        cdn: the CDN, or a ``PurgeQueue`` in front of it; None: the cache alone.

    Raises:
        ConfigurationError: something that is not a cache or a CDN.
    """

    def __init__(self, cache: BaseCache, *, cdn: BaseCDN | None = None) -> None:
        self._cache = instance(cache, BaseCache, parameter="cache")
        self._cdn = (
            None if cdn is None else offers(cdn, "purge_cache", "check_items", parameter="cdn", kind="a CDN")
        )

    def invalidate(self, tags: Iterable[str]) -> PurgeResult:
        """Invalidate the tags; errors of Redis and of the CDN are returned, not raised.

        While Redis is down, this process never serves an invalidated value again and sends the invalidation after
        recovery; the CDN is purged nevertheless.

        Args:
            tags: names of 1 to 200 characters without whitespace; with a CDN in ASCII, and for Cloudflare without
                commas.

        Returns:
            What was invalidated everywhere (``done``), and what was not (``failed``) and why.

        Raises:
            ConfigurationError: no tag, or an invalid one; nothing was invalidated.
        """
        return run(self._invalidation(self._checked(tags)))

    async def ainvalidate(self, tags: Iterable[str]) -> PurgeResult:
        """``invalidate`` for asyncio; the CDN is called in a worker thread."""
        return await arun(self._invalidation(self._checked(tags)))

    def _checked(self, tags: Iterable[str]) -> tuple[str, ...]:
        known = check_tags(tags)
        if not known:
            raise ConfigurationError("tags must contain at least one tag", parameter="tags")
        if self._cdn is not None:
            self._cdn.check_items(PurgeItem("tags", tag) for tag in known)
        return known

    def _invalidation(self, tags: tuple[str, ...]) -> Op[PurgeResult]:
        stored = yield from call_store(self._cache.invalidate_tags, *tags)
        purged = PurgeResult(ok=True, done=tags, failed=(), errors=())
        if self._cdn is not None:
            purged = yield from call_store(self._cdn.purge_cache, tags=tags)
        if stored:
            return purged
        return PurgeResult(
            ok=False,
            done=(),
            failed=tags,
            errors=("cache: not reachable; the invalidation is sent after its recovery", *purged.errors),
            retry_after=purged.retry_after or _RETRY_AFTER,
        )

    def __repr__(self) -> str:
        return f"TagInvalidator({self._cache!r}, cdn={self._cdn!r})"
