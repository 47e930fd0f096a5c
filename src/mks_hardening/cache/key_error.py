"""The one error of keys."""

from __future__ import annotations

from mks_hardening.exceptions import MksHardeningError

__all__ = ["CacheKeyError"]


class CacheKeyError(MksHardeningError, TypeError):
    """An argument has no canonical text, so that calls could share an answer wrongly.

    Pass its id instead, give ``key_func``, or define ``__cache_key__`` on its class.
    """
