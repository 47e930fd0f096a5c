"""What every store of this area in Redis is made of: one endpoint, one prefix, one end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.checks import namespace_of
from mks_hardening._core.closing import Closing

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisBacked"]


class RedisBacked(Closing):
    """Holds the client, and gives it back.

    Args:
        url_or_client: a Redis URL or client that does not decode answers.
        name: what is kept, for records and keys.
        namespace: prefix of the keys.
        store_budget: seconds one answer may take.
        allow_plaintext: whether clear text may leave this machine.
        clock: for tests.
        keys: what stands in keys, where it is not ``name``.

    Raises:
        ConfigurationError: an unusable URL, client or namespace.
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
        self._prefix = f"{namespace_of(namespace)}:{keys or name}:"

    def ping(self) -> bool:
        """Whether the server answers."""
        return self._client.ping()

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        self._client.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r})"
