"""Caching that is safe to forget: backends, decorators, invalidation, CDN purge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening.cache.backends.memory import MemoryCache
    from mks_hardening.cache.backends.null import NullCache
    from mks_hardening.cache.backends.redis_backend import RedisCache
    from mks_hardening.cache.backends.tiered import TieredCache
    from mks_hardening.cache.cdn import CDNManager, PurgeResult
    from mks_hardening.cache.decorator import CachedFunction, cache_if, cached, set_default_cache
    from mks_hardening.cache.entry import CacheStats
    from mks_hardening.cache.keys import CacheKeyError
    from mks_hardening.cache.response_cache import ResponseCacheMiddleware
    from mks_hardening.cache.response_rules import CacheRule

__all__ = [
    "CDNManager",
    "CacheKeyError",
    "CacheRule",
    "CacheStats",
    "CachedFunction",
    "MemoryCache",
    "NullCache",
    "PurgeResult",
    "RedisCache",
    "ResponseCacheMiddleware",
    "TieredCache",
    "cache_if",
    "cached",
    "set_default_cache",
]

_HOME = {
    "CDNManager": "mks_hardening.cache.cdn",
    "CacheKeyError": "mks_hardening.cache.keys",
    "CacheRule": "mks_hardening.cache.response_rules",
    "CacheStats": "mks_hardening.cache.entry",
    "CachedFunction": "mks_hardening.cache.decorator",
    "MemoryCache": "mks_hardening.cache.backends.memory",
    "NullCache": "mks_hardening.cache.backends.null",
    "PurgeResult": "mks_hardening.cache.cdn",
    "RedisCache": "mks_hardening.cache.backends.redis_backend",
    "ResponseCacheMiddleware": "mks_hardening.cache.response_cache",
    "TieredCache": "mks_hardening.cache.backends.tiered",
    "cache_if": "mks_hardening.cache.decorator",
    "cached": "mks_hardening.cache.decorator",
    "set_default_cache": "mks_hardening.cache.decorator",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)
