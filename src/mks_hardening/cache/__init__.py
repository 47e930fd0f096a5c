"""Caching: backends, decorators, a response cache, invalidation, CDN purging."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.cache.after_commit": ["AfterCommit"],
    "mks_hardening.cache.backends.memory_cache": ["MemoryCache"],
    "mks_hardening.cache.backends.null_cache": ["NullCache"],
    "mks_hardening.cache.backends.redis_cache": ["RedisCache"],
    "mks_hardening.cache.backends.tiered_cache": ["TieredCache"],
    "mks_hardening.cache.base_cache": ["BaseCache"],
    "mks_hardening.cache.cdn.cdn_manager": ["CDNManager"],
    "mks_hardening.cache.cdn.purge_result": ["PurgeResult"],
    "mks_hardening.cache.decorator": ["CachedFunction", "cache_if", "cached", "set_default_cache"],
    "mks_hardening._core.cache_key_error": ["CacheKeyError"],
    "mks_hardening.wsgi.response_cache.middleware": ["ResponseCacheMiddleware"],
    "mks_hardening._edge.response_cache.cache_rule": ["CacheRule"],
    "mks_hardening.cache.stats": ["CacheStats"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
