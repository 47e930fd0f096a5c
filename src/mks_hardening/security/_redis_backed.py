"""Base class of the Redis stores of this package."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_operations import RunScript
from mks_hardening._core.checks import namespace_of
from mks_hardening._core.closing import Closing
from mks_hardening._core.operations import Op
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisStoreBase"]

_logger: Final = logging.getLogger("mks_hardening.security")


class RedisStoreBase(Closing):
    """A store with a Redis client, a key prefix and a ``close`` method.

    Args:
        url_or_client: a Redis URL, or a client that does not decode responses.
        name: name of the store in log records and, by default, in keys.
        namespace: prefix of the keys.
        store_budget: time limit of one store operation, in seconds.
        allow_plaintext: whether to allow an unencrypted connection to another machine.
        clock: for tests.
        keys: name of the store in keys, if it differs from ``name``.

    Raises:
        ConfigurationError: the URL, client or namespace is invalid.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        name: str,
        namespace: str,
        store_budget: float,
        allow_plaintext: bool,
        clock: Clock,
        keys: str = "",
    ) -> None:
        self._client = RedisClient(
            url_or_client, name=name, store_budget=store_budget, allow_plaintext=allow_plaintext, clock=clock
        )
        self._name = name
        self._settings_checked = False
        self._prefix = f"{namespace_of(namespace)}:{keys or name}:"

    def ping(self) -> bool:
        """Return whether the server responds."""
        return self._client.ping()

    def close(self) -> None:
        """Release connections; can be called more than once."""
        self._client.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self._client.aclose()

    def _warn_of_loss(self, key: str) -> Op[None]:
        """Log a warning, once, if the settings of the server that stored this key risk losing it."""
        if self._settings_checked:
            return
        self._settings_checked = True
        script = self._client.script(lua_source("mks_hardening.security", "lua/server_settings.lua"))
        try:
            answer: Sequence[bytes] = yield RunScript(script, [key], [], idempotent=True)
        except BackendUnavailableError:
            return  # the write was confirmed and must not fail because of this check
        policy, limit, append_only = (text.decode("ascii", "replace") for text in answer)
        # These keys have no expiry, so a policy ``volatile-...`` does not evict them.
        if policy.startswith("allkeys") and limit not in {"", "0"}:
            _logger.warning(
                "the Redis server of %s deletes entries when it is full (maxmemory-policy %s): set noeviction, "
                "or accounts lose their second factor",
                self._name,
                policy,
            )
        if append_only == "0":
            _logger.warning(
                "the Redis server of %s keeps no append-only file (appendonly no): set appendonly yes, or a crash "
                "undoes the latest changes of second factors",
                self._name,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r})"
