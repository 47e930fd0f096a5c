"""Django cache backend on top of our cache: an outage is a cache miss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening.contrib.django_app._cache_lock import CacheLock
from mks_hardening.contrib.django_app._cache_values import needs_packing, pack_value, unpack_value
from mks_hardening.contrib.django_app._cached_pages import (
    UNKNOWN_REQUEST,
    not_storable_page_reason,
    visitor_reason,
)
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import (
    DEFAULT_TIMEOUT,
    BaseCache,
    FromDjango,
    HttpResponseBase,
)
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    DecodeError,
    EncodeError,
)

if TYPE_CHECKING:
    from mks_hardening.cache import MemoryCache, RedisCache

__all__ = ["HardenedCache"]

# For Django's "never expires"; a cache may drop any entry at any time.
_FOR_EVER: Final = 366 * 86_400.0
_MISSING: Final = object()
_SPECIAL: Final = str.maketrans({character: f"\\{character}" for character in "\\*?[]"})
# Never packed: copying them for the other values of a call would only take time.
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
_logger: Final = logging.getLogger("mks_hardening.cache")


class HardenedCache(BaseCache):
    """A Django cache backend: ``{"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache"}``.

    Values are plain data, model instances, query sets (stored as the list of their results), safe strings and
    responses, and containers of them; others raise ``EncodeError``. An instance comes back with its own fields, its
    annotations and what ``select_related`` has loaded; if the fields of its model have changed since, the entry is
    a miss. While Redis is unavailable every look-up is a miss, and invalidations are queued and sent later.

    ``cache_page`` stores a page only if it is the same for all visitors: the view read neither session nor CSRF
    token, and the request has no sign of a user (``Authorization``, fields of an authenticating proxy, cookies
    other than those two, unless the page has ``Vary: Cookie``). Requests with such a sign do not get stored pages
    either. It needs ``HardeningMiddleware``, which knows the request.

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
        return self._value(self.inner.get(self.make_and_validate_key(key, version), _MISSING), default)

    def set(
        self, key: str, value: FromDjango, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Store a value."""
        ttl, name = self._ttl(timeout), self.make_and_validate_key(key, version)
        if ttl <= 0:
            self.inner.delete(name)
        elif not (isinstance(value, HttpResponseBase) and self._refuses_page(value, name)):
            self._store({name: value}, ttl)

    def add(
        self, key: str, value: FromDjango, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store a value if there is none; of all processes, only one caller succeeds."""
        ttl = self._ttl(timeout)
        if ttl <= 0 or (isinstance(value, HttpResponseBase) and self._refuses_page(value)):
            return False
        try:
            return self._replace(key, version, lambda present: (value, ttl) if present is None else None)
        except EncodeError:
            packed = pack_value(value)
            return self._replace(key, version, lambda present: (packed, ttl) if present is None else None)

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Add to a number without losing a concurrent change; its expiry stays. Returns the new value.

        Raises:
            ValueError: there is no value, or Redis is unavailable.
        """
        result: list[int] = []

        def add(present: FromDjango) -> tuple[object, float] | None:
            if present is None:
                return None
            result[:] = [present.value + delta]
            return result[0], present.fresh_until - self.inner.clock.time()

        if not self._replace(key, version, add):
            raise ValueError(f"Key '{key}' not found")
        return result[0]

    def touch(self, key: str, timeout: FromDjango = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Change the expiry of a value; a concurrent change of the value is not lost."""
        ttl = self._ttl(timeout)
        return self._replace(key, version, lambda present: present and (present.value, ttl))

    def ttl(self, key: str, version: int | None = None) -> int:
        """Return the seconds until a value expires, rounded up; 0 without a value."""
        left = self.inner.expires_in(self.make_and_validate_key(key, version))
        return 0 if left is None else -int(-left // 1)

    def delete(self, key: str, version: int | None = None) -> bool:
        """Delete a value; returns whether there was one."""
        return self.inner.delete(self.make_and_validate_key(key, version)) > 0

    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        """Delete the values whose keys match a glob pattern, and return their number; for maintenance.

        Raises:
            ConfigurationError: the ``KEY_FUNCTION`` does more than to put something in front of a key.
        """
        return self.inner.delete_pattern(self._head(version).translate(_SPECIAL) + pattern)

    def keys(self, pattern: str = "*", version: int | None = None) -> list[str]:
        """Return the keys that have a value and match a glob pattern; for maintenance.

        Raises:
            ConfigurationError: as for ``delete_pattern``.
        """
        head = self._head(version)
        return [key[len(head) :] for key in self.inner.keys(head.translate(_SPECIAL) + pattern)]

    def iter_keys(self, pattern: str = "*", version: int | None = None) -> Iterator[str]:
        """Iterate over ``keys``."""
        return iter(self.keys(pattern, version))

    def lock(
        self,
        key: str,
        version: int | None = None,
        timeout: float = 30,
        sleep: float = 0.1,
        blocking_timeout: float | None = None,
    ) -> CacheLock:
        """Return a lock that all processes share, for ``with``.

        Args:
            key: its name; no value of the cache has it.
            version: as for all keys.
            timeout: seconds after which the lock ends, if its holder has not released it.
            sleep: seconds between two attempts.
            blocking_timeout: maximum seconds to wait for the lock; by default without limit.
        """
        name = self.make_and_validate_key(f"mks-lock:{key}", version)
        return CacheLock(self.inner, name, timeout=timeout, sleep=sleep, blocking_timeout=blocking_timeout)

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, FromDjango]:
        """Return the values of those keys that have one, in one round trip."""
        names = {self.make_and_validate_key(key, version): key for key in keys}
        found = self.inner.get_many(names)
        values = {names[name]: self._value(value, _MISSING) for name, value in found.items()}
        return {key: value for key, value in values.items() if value is not _MISSING}

    def set_many(
        self,
        data: Mapping[str, FromDjango],
        timeout: FromDjango = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[str]:
        """Store several values in one round trip; returns the keys that could not be stored."""
        ttl = self._ttl(timeout)
        refused = [
            key
            for key, value in data.items()
            if isinstance(value, HttpResponseBase)
            and self._refuses_page(value, self.make_and_validate_key(key, version))
        ]
        named = {
            self.make_and_validate_key(key, version): value
            for key, value in data.items()
            if key not in refused
        }
        if ttl <= 0:
            self.inner.delete(*named)
            return []
        return refused if self._store(named, ttl) else list(data)

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

    def _value(self, stored: FromDjango, default: FromDjango) -> FromDjango:
        """Return the value for what is stored, or ``default`` if this process or visitor must not have it."""
        if stored is _MISSING:
            return default
        try:
            value = unpack_value(stored)
        except DecodeError:  # of another release: a miss
            self.inner.count_bypass("version")
            return default
        if isinstance(value, HttpResponseBase) and (reason := visitor_reason(value)):
            self.inner.count_bypass(reason)
            return default
        return value

    def _store(self, values: Mapping[str, FromDjango], ttl: float) -> bool:
        if not any(needs_packing(value) for value in values.values()):
            try:
                return self.inner.set_many(values, ttl=ttl)
            except EncodeError:  # perhaps of a container that holds instances
                pass
        packed = {
            name: value if type(value) in _PLAIN else pack_value(value) for name, value in values.items()
        }
        return self.inner.set_many(packed, ttl=ttl)

    def _replace(
        self,
        key: str,
        version: int | None,
        change: Callable[[FromDjango], tuple[object, float] | None],
    ) -> bool:
        name = self.make_and_validate_key(key, version)
        try:
            return self.inner.replace(name, change, wait=self.inner.compute_wait)
        except BackendUnavailableError:
            return False

    def _head(self, version: int | None) -> str:
        """Return what the names of all keys begin with."""
        head, probe = self.make_key("", version), self.make_key("\0", version)
        if probe != head + "\0":
            raise ConfigurationError(
                "keys and delete_pattern need a KEY_FUNCTION that only puts something in front of the key",
                parameter="KEY_FUNCTION",
            )
        return head

    def _refuses_page(self, page: FromDjango, name: str = "") -> bool:
        """Return whether a response must not be stored; then drop the stored one, which is no better."""
        visitor = visitor_reason(page)
        reason = visitor or not_storable_page_reason(page)
        if reason is None:
            return False
        self.inner.count_bypass(reason)
        _logger.debug("a page is not stored: %s", reason)
        if name and not visitor:
            self.inner.delete(name)
        if not HardenedCache._has_warned and reason == UNKNOWN_REQUEST:
            HardenedCache._has_warned = True
            _logger.warning(
                "responses are stored in HardenedCache only inside HardeningMiddleware, which knows whether a page "
                "is for one visitor: use cache_page for views, or ResponseCacheMiddleware inside hardened(), "
                "instead of Django's cache middleware"
            )
        return True

    def _ttl(self, timeout: FromDjango) -> float:
        chosen: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return _FOR_EVER if chosen is None else min(float(chosen), _FOR_EVER)
