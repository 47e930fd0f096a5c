"""``CACHES``: Django's cache in ours, where an outage is a miss."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening.contrib.django_app._components import parts
from mks_hardening.contrib.django_app._django import (
    DEFAULT_TIMEOUT,
    BaseCache,
    FromDjango,
    HttpResponseBase,
)

if TYPE_CHECKING:
    from mks_hardening.cache import MemoryCache, RedisCache

__all__ = ["HardenedCache"]

# Django's "for ever"; a cache may forget anything at any time.
_FOR_EVER: Final = 366 * 86_400.0
_MISSING: Final = object()
_logger: Final = logging.getLogger("mks_hardening.cache")


class HardenedCache(BaseCache):
    """A cache of Django's: ``{"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache"}``.

    Values are data: what is no data raises ``EncodeError``; responses (``cache_page``) are not kept. While Redis is
    away everything is a miss, and an invalidation is kept and sent later. ``incr`` and ``touch`` read and write in
    two steps.

    Args:
        location: a Redis URL; empty for the one of the settings, or memory of the process without one.
        params: Django's: ``TIMEOUT``, ``KEY_PREFIX``, ``VERSION``, ``KEY_FUNCTION``.
    """

    _has_warned = False  # of the class: Django makes an instance for each thread

    def __init__(self, location: str, params: Mapping[str, object]) -> None:
        super().__init__(params)
        self._location = location

    @property
    def inner(self) -> RedisCache | MemoryCache:
        """The cache of ours."""
        return parts().cache(self._location)

    def get(self, key: str, default: FromDjango = None, version: int | None = None) -> FromDjango:
        """The value, or ``default``."""
        return self.inner.get(self.make_and_validate_key(key, version), default)

    def set(
        self, key: str, value: FromDjango, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Keep a value."""
        ttl, name = self._ttl(timeout), self.make_and_validate_key(key, version)
        if isinstance(value, HttpResponseBase):
            self._refuse_page()
            self.inner.delete(name)
        elif ttl > 0:
            self.inner.set(name, value, ttl=ttl)
        else:
            self.inner.delete(name)

    def add(
        self, key: str, value: FromDjango, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Keep a value where there is none: one caller of all processes does."""
        ttl, name, added = self._ttl(timeout), self.make_and_validate_key(key, version), False

        def mine() -> FromDjango:
            nonlocal added
            added = True
            return value

        if ttl > 0:
            self.inner.get_or_compute(name, mine, ttl=ttl)
        return added

    def touch(self, key: str, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Keep a value for another while."""
        value = self.get(key, _MISSING, version)
        if value is _MISSING:
            return False
        self.set(key, value, timeout, version)
        return True

    def delete(self, key: str, version: int | None = None) -> bool:
        """Forget a value; whether there was one."""
        return self.inner.delete(self.make_and_validate_key(key, version)) > 0

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, FromDjango]:
        """The values of those keys that have one, in one round trip."""
        names = {self.make_and_validate_key(key, version): key for key in keys}
        return {names[name]: value for name, value in self.inner.get_many(names).items()}

    def set_many(
        self,
        data: Mapping[str, FromDjango],
        timeout: FromDjango = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[str]:
        """Keep several values in one round trip; the keys for which that could not be done."""
        ttl = self._ttl(timeout)
        named = {self.make_and_validate_key(key, version): value for key, value in data.items()}
        if ttl <= 0:
            self.inner.delete(*named)
            return []
        return [] if self.inner.set_many(named, ttl=ttl) else list(data)

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Forget several."""
        self.inner.delete(*(self.make_and_validate_key(key, version) for key in keys))

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Whether there is a value."""
        return self.inner.exists(self.make_and_validate_key(key, version))

    def clear(self) -> None:
        """Forget everything of this location."""
        self.inner.clear()

    def close(self, **_: object) -> None:
        """Called by Django after each request; connections stay."""

    def _refuse_page(self) -> None:
        """Keep no page: what the session and the CSRF token add to it is not in it yet when Django keeps it."""
        self.inner.count_bypass("response")
        if not HardenedCache._has_warned:
            HardenedCache._has_warned = True
            _logger.warning(
                "cache_page and Django's cache middleware keep nothing in HardenedCache, as they cannot tell a "
                "page for one visitor from a page for all; use ResponseCacheMiddleware inside hardened()"
            )

    def _ttl(self, timeout: FromDjango) -> float:
        chosen: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return _FOR_EVER if chosen is None else min(float(chosen), _FOR_EVER)
