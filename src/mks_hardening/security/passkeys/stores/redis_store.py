"""Passkey store in Redis: one key per owner and challenge, in any slot of a cluster."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.backend.redis_operations import Pipeline, RunScript
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.security._redis_backed import RedisStoreBase

__all__ = ["RedisPasskeyStore"]

_PACKAGE: Final = "mks_hardening.security.passkeys.stores"


class RedisPasskeyStore(RedisStoreBase):
    """Store owners and challenges of passkeys in Redis.

    Owners are data, not a cache: the server must run with ``maxmemory-policy noeviction`` and persistence
    (``appendonly yes``). After the first owner is stored, the logger ``mks_hardening.security`` warns about a
    server with other settings.

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

    _NAME = "passkeys"
    _KEYS = "passkey"

    @sync_method
    def save_challenge(self, key: str, data: bytes, /, *, ttl: float) -> Op[None]:
        """Store the data of a challenge for ``ttl`` seconds."""
        command = ("SET", f"{self._prefix}challenge:{key}", data, "PX", max(1, int(ttl * 1000)))
        yield Pipeline(self._client, [command], idempotent=True)

    @async_method(save_challenge)
    def asave_challenge(self) -> None:
        """``save_challenge`` for asyncio."""

    @sync_method
    def consume_challenge(self, key: str, /) -> Op[bytes | None]:
        """Return and remove the data of a challenge, unless it has expired."""
        # Not retried after a lost response: the first command may have removed the challenge, and the retry would
        # report it as expired.
        answer: list[bytes | None] = yield Pipeline(
            self._client, [("GETDEL", f"{self._prefix}challenge:{key}")], idempotent=False
        )
        return answer[0]

    @async_method(consume_challenge)
    def aconsume_challenge(self) -> None:
        """``consume_challenge`` for asyncio."""

    @sync_method
    def assign_owner(self, credential: str, user_id: str, /) -> Op[str]:
        """Make a user the owner of a credential without one; return the owner."""
        key = f"{self._prefix}owner:{credential}"
        answer: bytes = yield RunScript(
            self._script(_PACKAGE, "assign_owner"), [key], [user_id], idempotent=True
        )
        yield from self._warn_of_loss(key)
        return answer.decode("utf-8")

    @async_method(assign_owner)
    def aassign_owner(self) -> None:
        """``assign_owner`` for asyncio."""

    @sync_method
    def owner(self, credential: str, /) -> Op[str | None]:
        """Return the owner of a credential."""
        answer: list[bytes | None] = yield Pipeline(
            self._client, [("GET", f"{self._prefix}owner:{credential}")], idempotent=True
        )
        return None if answer[0] is None else answer[0].decode("utf-8")

    @async_method(owner)
    def aowner(self) -> None:
        """``owner`` for asyncio."""

    @sync_method
    def release(self, credential: str, user_id: str, /) -> Op[bool]:
        """Remove a credential if it belongs to this user; return whether it did."""
        return bool(
            (
                yield RunScript(
                    self._script(_PACKAGE, "release"), [f"{self._prefix}owner:{credential}"], [user_id]
                )
            )
        )

    @async_method(release)
    def arelease(self) -> None:
        """``release`` for asyncio."""
