"""The error for arguments that cannot be part of a cache key."""

from __future__ import annotations

from mks_hardening.exceptions import MksHardeningError

__all__ = ["CacheKeyError"]


class CacheKeyError(MksHardeningError, TypeError):
    """An argument has no canonical text, so that different calls could share a result.

    Pass its id instead, give ``key_func``, or define ``__cache_key__`` on its class.
    """
