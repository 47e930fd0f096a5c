"""Two-factor store in Redis: hashes spread over the slots of a cluster, changed by one script."""

from __future__ import annotations

import zlib
from typing import Final

from mks_hardening._core.backend.redis_operations import Pipeline, RunScript
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op, run
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import StoredFactor
from mks_hardening.security._redis_backed import RedisStoreBase

__all__ = ["RedisTwoFactorStore"]

# Part of the keys of every deployment: another number would lose all second factors. 64 spreads over the nodes of
# a cluster and keeps one HSCAN small.
_SHARDS: Final = 64
_PACKAGE: Final = "mks_hardening.security.second_factor.stores"


class RedisTwoFactorStore(RedisStoreBase):
    """Store second factors in Redis.

    They are data, not a cache: the server must run with ``maxmemory-policy noeviction`` and persistence
    (``appendonly yes``), or accounts lose their second factor. If you cannot guarantee that, use the database.
    After the first write, the logger ``mks_hardening.security`` warns about a server with other settings.

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

    _NAME = "two-factor"
    _KEYS = "two-factor"

    @sync_method
    def load(self, user_id: str, /) -> Op[StoredFactor | None]:
        """Return the record of a user, or ``None``."""
        found = yield from self._load_record(self._key(user_id), user_id)
        return None if found is None else StoredFactor(*found)

    @async_method(load)
    def aload(self) -> None:
        """``load`` for asyncio."""

    @sync_method
    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> Op[bool]:
        """Write or remove a record if its version is still the expected one."""
        key = self._key(user_id)
        replaced = yield from self._replace_record(key, data, expected, version, field=user_id)
        yield from self._warn_of_loss(key)
        return replaced

    @async_method(replace)
    def areplace(self) -> None:
        """``replace`` for asyncio."""

    @sync_method
    def scan(self, cursor: str | None, /, *, limit: int) -> Op[tuple[list[str], str | None]]:
        """Return user ids, shard by shard."""
        shard, position = (0, "0") if cursor is None else _parsed(cursor)
        found: list[str] = []
        while shard < _SHARDS and len(found) < limit:
            answer: list[bytes] = yield RunScript(
                self._script(_PACKAGE, "scan"), [self._shard(shard)], [position, limit], idempotent=True
            )
            following, *users = answer
            found += [user_id.decode("utf-8") for user_id in users]
            position = following.decode("ascii")
            if position == "0":
                shard += 1
        return found, f"{shard}:{position}" if shard < _SHARDS else None

    @async_method(scan)
    def ascan(self) -> None:
        """``scan`` for asyncio."""

    def count(self) -> int:
        """Return the number of users with a record."""
        return run(self._counted())

    def _counted(self) -> Op[int]:
        number = 0
        for shard in range(_SHARDS):
            answer: list[int] = yield Pipeline(
                self._client, [("HLEN", self._shard(shard))], idempotent=True, patient=True
            )
            number += answer[0]
        return number

    def _key(self, user_id: str) -> str:
        # Not hash(), which differs between processes.
        return self._shard(zlib.crc32(user_id.encode("utf-8")) % _SHARDS)

    def _shard(self, number: int) -> str:
        # The braces make the number the hash tag, so that a script accesses one slot only (Redis Cluster).
        return f"{self._prefix}{{{number:02}}}"


def _parsed(cursor: str) -> tuple[int, str]:
    shard, _, position = cursor.partition(":")
    if not (shard.isdecimal() and position.isdecimal()):
        raise ConfigurationError("cursor must be one that scan returned", parameter="cursor")
    return int(shard), position
