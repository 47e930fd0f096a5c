"""Django cache backend on top of our cache: an outage is a cache miss."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import (
    DEFAULT_TIMEOUT,
    BaseCache,
    FromDjango,
    HttpResponseBase,
)

if TYPE_CHECKING:
    from mks_hardening.cache import MemoryCache, RedisCache

__all__ = ["HardenedCache"]

# For Django's "never expires"; a cache may drop any entry at any time.
_FOR_EVER: Final = 366 * 86_400.0
_MISSING: Final = object()
_logger: Final = logging.getLogger("mks_hardening.cache")


class HardenedCache(BaseCache):
    """A Django cache backend: ``{"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache"}``.

    Values must be plain data; others raise ``EncodeError``, and responses (``cache_page``) are not cached. While
    Redis is unavailable every look-up is a miss, and invalidations are queued and sent later. ``incr`` and
    ``touch`` are not atomic: they read and then write.

    Args:
        location: a Redis URL; if empty, that of the settings, or the memory of the process without one.
        params: Django's parameters: ``TIMEOUT``, ``KEY_PREFIX``, ``VERSION``, ``KEY_FUNCTION``.
    """

    _has_warned = False  # on the class: Django creates an instance per thread

    def __init__(self, location: str, params: Mapping[str, object]) -> None:
        super().__init__(params)
        self._location = location

    @property
    def inner(self) -> RedisCache | MemoryCache:
        """The underlying cache."""
        return components().cache(self._location)

    def get(self, key: str, default: FromDjango = None, version: int | None = None) -> FromDjango:
        """Return the value, or ``default``."""
        return self.inner.get(self.make_and_validate_key(key, version), default)

    def set(
        self, key: str, value: FromDjango, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Store a value."""
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
        """Store a value if there is none; of all processes, only one caller succeeds."""
        ttl, name, added = self._ttl(timeout), self.make_and_validate_key(key, version), False

        def mine() -> FromDjango:
            nonlocal added
            added = True
            return value

        if ttl > 0:
            self.inner.get_or_compute(name, mine, ttl=ttl)
        return added

    def touch(self, key: str, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Extend the expiry of a value."""
        value = self.get(key, _MISSING, version)
        if value is _MISSING:
            return False
        self.set(key, value, timeout, version)
        return True

    def delete(self, key: str, version: int | None = None) -> bool:
        """Delete a value; returns whether there was one."""
        return self.inner.delete(self.make_and_validate_key(key, version)) > 0

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, FromDjango]:
        """Return the values of those keys that have one, in one round trip."""
        names = {self.make_and_validate_key(key, version): key for key in keys}
        return {names[name]: value for name, value in self.inner.get_many(names).items()}

    def set_many(
        self,
        data: Mapping[str, FromDjango],
        timeout: FromDjango = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[str]:
        """Store several values in one round trip; returns the keys that could not be stored."""
        ttl = self._ttl(timeout)
        named = {self.make_and_validate_key(key, version): value for key, value in data.items()}
        if ttl <= 0:
            self.inner.delete(*named)
            return []
        return [] if self.inner.set_many(named, ttl=ttl) else list(data)

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Delete several values."""
        self.inner.delete(*(self.make_and_validate_key(key, version) for key in keys))

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Return whether there is a value."""
        return self.inner.exists(self.make_and_validate_key(key, version))

    def clear(self) -> None:
        """Delete everything in this location."""
        self.inner.clear()

    def close(self, **_: object) -> None:
        """Do nothing; Django calls this after each request, and connections stay open."""

    def _refuse_page(self) -> None:
        """Refuse to cache a page: the effects of session and CSRF token are not in it yet when Django caches it."""
        self.inner.count_bypass("response")
        if not HardenedCache._has_warned:
            HardenedCache._has_warned = True
            _logger.warning(
                "cache_page and Django's cache middleware store nothing in HardenedCache, as they cannot tell a "
                "page for one visitor from a page for all; use ResponseCacheMiddleware inside hardened()"
            )

    def _ttl(self, timeout: FromDjango) -> float:
        chosen: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return _FOR_EVER if chosen is None else min(float(chosen), _FOR_EVER)
