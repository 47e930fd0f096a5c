# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening._core.cache_key_error import CacheKeyError as CacheKeyError
from mks_hardening.cache._function_cache import set_default_cache as set_default_cache
from mks_hardening.cache.after_commit import AfterCommit as AfterCommit
from mks_hardening.cache.backends.memory_cache import MemoryCache as MemoryCache
from mks_hardening.cache.backends.null_cache import NullCache as NullCache
from mks_hardening.cache.backends.redis_cache import RedisCache as RedisCache
from mks_hardening.cache.backends.tiered_cache import TieredCache as TieredCache
from mks_hardening.cache.base_cache import BaseCache as BaseCache
from mks_hardening.cache.cache_stats import CacheStats as CacheStats
from mks_hardening.cache.cache_transaction import CacheTransaction as CacheTransaction
from mks_hardening.cache.cdn.base_cdn import BaseCDN as BaseCDN
from mks_hardening.cache.cdn.cdn_manager import CDNManager as CDNManager
from mks_hardening.cache.cdn.fastly_cdn import FastlyCDN as FastlyCDN
from mks_hardening.cache.cdn.purge_item import PurgeItem as PurgeItem
from mks_hardening.cache.cdn.purge_item import URLVariant as URLVariant
from mks_hardening.cache.cdn.purge_queue import PurgeQueue as PurgeQueue
from mks_hardening.cache.cdn.purge_queue import PurgeStats as PurgeStats
from mks_hardening.cache.cdn.purge_result import PurgeResult as PurgeResult
from mks_hardening.cache.cdn.tag_invalidator import TagInvalidator as TagInvalidator
from mks_hardening.cache.decorator import CachedFunction as CachedFunction
from mks_hardening.cache.decorator import cache_if as cache_if
from mks_hardening.cache.decorator import cached as cached
