"""Slots in Redis: for each place a sorted set of tokens, scored by the end of the lease on the server's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_operations import Pipeline, RunScript
from mks_hardening._core.checks import namespace_of
from mks_hardening.security._membership import announcement_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening._core.operations import Op
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisSlots"]

_PACKAGE: Final = "mks_hardening.security.concurrency"


class RedisSlots:
    """Slots shared by all processes that use one Redis. The tokens make every operation idempotent."""

    def __init__(
        self,
        storage: str | RedisLike | RedisClient,
        *,
        lease: float,
        namespace: str,
        store_budget: float,
        allow_plaintext: bool,
        clock: Clock,
    ) -> None:
        self._client = RedisClient(
            storage, name="slots", store_budget=store_budget, allow_plaintext=allow_plaintext, clock=clock
        )
        self._acquire = self._client.script(lua_source(_PACKAGE, "lua/acquire.lua"))
        self._renew = self._client.script(lua_source(_PACKAGE, "lua/renew.lua"))
        self._lease_ms = max(1, round(lease * 1000))
        self._prefix = f"{namespace_of(namespace)}:slots:"
        self.announce = announcement_call(self._client, self._prefix)

    def acquire(self, place: str, token: str, *, quota: int) -> Op[tuple[bool, int, float]]:
        """Return whether the slot was acquired, how many are held, and seconds until the first lease ends."""
        got, held, wait = yield RunScript(
            self._acquire, [self._prefix + place], [token, quota, self._lease_ms], idempotent=True
        )
        return bool(got), held, wait / 1000

    def renew(self, place: str, tokens: Sequence[str]) -> Op[list[bool]]:
        """Renew leases; return for each whether it had not expired."""
        held = yield RunScript(
            self._renew, [self._prefix + place], [self._lease_ms, *tokens], idempotent=True
        )
        return [bool(one) for one in held]

    def release(self, place: str, token: str) -> Op[None]:
        """End a lease."""
        yield Pipeline(self._client, [("ZREM", self._prefix + place, token)], idempotent=True)

    def in_doubt(self) -> bool:
        """Return whether the server is known to be unavailable, so that a call would fail."""
        return self._client.in_doubt()

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Release connections, including those of the running event loop."""
        await self._client.aclose()
