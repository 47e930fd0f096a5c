"""Caching: backends, decorators, invalidation, CDN purging.

The response cache, ``ResponseCacheMiddleware`` and ``CacheRule``, is in ``mks_hardening.wsgi`` and
``mks_hardening.asgi``.
"""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.cache.after_commit": ["AfterCommit"],
    "mks_hardening.cache.backends.memory_cache": ["MemoryCache"],
    "mks_hardening.cache.backends.null_cache": ["NullCache"],
    "mks_hardening.cache.backends.redis_cache": ["RedisCache"],
    "mks_hardening.cache.backends.tiered_cache": ["TieredCache"],
    "mks_hardening.cache.base_cache": ["BaseCache"],
    "mks_hardening.cache.cdn.base_cdn": ["BaseCDN"],
    "mks_hardening.cache.cdn.cdn_manager": ["CDNManager"],
    "mks_hardening.cache.cdn.fastly_cdn": ["FastlyCDN"],
    "mks_hardening.cache.cdn.purge_item": ["PurgeItem", "URLVariant"],
    "mks_hardening.cache.cdn.purge_queue": ["PurgeQueue", "PurgeStats"],
    "mks_hardening.cache.cdn.purge_result": ["PurgeResult"],
    "mks_hardening.cache.cdn.tag_invalidator": ["TagInvalidator"],
    "mks_hardening.cache.decorator": ["CachedFunction", "cache_if", "cached"],
    "mks_hardening.cache._function_cache": ["set_default_cache"],
    "mks_hardening._core.cache_key_error": ["CacheKeyError"],
    "mks_hardening.cache.cache_stats": ["CacheStats"],
    "mks_hardening.cache.cache_transaction": ["CacheTransaction"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
