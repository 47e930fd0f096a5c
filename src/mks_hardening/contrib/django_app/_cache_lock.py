"""A lock in the cache that all processes share."""

from __future__ import annotations

import logging
import secrets
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from mks_hardening._core.durations import seconds

if TYPE_CHECKING:
    from mks_hardening.cache import BaseCache
    from mks_hardening.cache._entry import CacheEntry

__all__ = ["CacheLock"]

_logger: Final = logging.getLogger("mks_hardening.cache")


class CacheLock:
    """A lock that at most one holder has, until it is released or its time has passed.

    Deleting everything in the cache ends it too. So do not rely on it alone where two holders would do damage.

    Args:
        cache: the cache.
        name: key of the lock.
        timeout: seconds after which the lock ends.
        sleep: seconds between two attempts.
        blocking_timeout: maximum seconds to wait; None: without limit.

    Raises:
        ConfigurationError: one of them is not a duration.
    """

    def __init__(
        self, cache: BaseCache, name: str, *, timeout: float, sleep: float, blocking_timeout: float | None
    ) -> None:
        self._cache = cache
        self._clock = cache.clock
        self._name = name
        self._timeout = seconds(timeout, parameter="timeout", allow_zero=False)
        self._sleep = seconds(sleep, parameter="sleep", allow_zero=False)
        self._blocking_timeout = (
            None if blocking_timeout is None else seconds(blocking_timeout, parameter="blocking_timeout")
        )
        self._token: str | None = None

    def acquire(self, *, blocking: bool = True) -> bool:
        """Acquire the lock; return whether that succeeded in time.

        Raises:
            BackendUnavailableError: Redis is unavailable.
            RuntimeError: this object holds the lock already.
        """
        if self._token is not None:
            raise RuntimeError("this lock is held already")
        token = secrets.token_hex(16)
        limit = self._blocking_timeout if blocking else 0.0
        until = None if limit is None else self._clock.monotonic() + limit
        while True:
            if self._cache.replace(
                self._name,
                lambda present: (token, self._timeout) if present is None else None,
                wait=self._cache.compute_wait,
            ):
                self._token = token
                return True
            left = self._sleep if until is None else until - self._clock.monotonic()
            if left <= 0:
                return False
            time.sleep(min(self._sleep, left))

    def release(self) -> bool:
        """Release the lock; return whether this object still held it.

        Raises:
            BackendUnavailableError: Redis is unavailable; the lock ends by itself.
        """
        token, self._token = self._token, None

        def remove(present: CacheEntry | None) -> tuple[object, float] | None:
            return (None, 0.0) if token and present is not None and present.value == token else None

        return self._cache.replace(self._name, remove, wait=self._cache.compute_wait)

    def __enter__(self) -> Self:
        if not self.acquire():
            raise TimeoutError(f"the lock was not acquired within {self._blocking_timeout:g} seconds")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.release():
            _logger.warning(
                "a lock ended after %g seconds, before its holder released it: choose a longer timeout",
                self._timeout,
            )
