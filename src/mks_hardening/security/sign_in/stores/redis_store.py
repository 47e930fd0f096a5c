"""Sign-in store in Redis: one key with an expiry per entry, changed by one script."""

from __future__ import annotations

from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.security._redis_backed import RedisStoreBase
from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry

__all__ = ["RedisSignInStore"]


class RedisSignInStore(RedisStoreBase):
    """Store challenges and tokens in Redis, shared by all processes.

    If the server loses an entry, its user has to start the sign-in again or request another mail.

    Args:
        url_or_client: a Redis URL, or a client that does not decode responses.
        namespace: prefix of the keys.
        store_budget: time limit of one store operation, in seconds.
        allow_plaintext: whether to allow an unencrypted connection to another machine.
        clock: for tests.

    Raises:
        ConfigurationError: the URL, client or namespace is invalid.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    _NAME = "sign-in"
    _KEYS = "sign-in"

    @sync_method
    def load(self, key: str, /) -> Op[SignInEntry | None]:
        """Return the entry, unless it has expired."""
        found = yield from self._load_record(self._prefix + key)
        return None if found is None else SignInEntry(*found)

    @async_method(load)
    def aload(self) -> None:
        """``load`` for asyncio."""

    @sync_method
    def replace(
        self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float
    ) -> Op[bool]:
        """Write an entry if its version is still the expected one."""
        return self._replace_record(self._prefix + key, data, expected, version, ttl=ttl)

    @async_method(replace)
    def areplace(self) -> None:
        """``replace`` for asyncio."""
