"""Second factors in Redis: hashes spread over the slots of a cluster, changed by one script."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Self

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.redis_client import RedisClient
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import StoredFactor
from mks_hardening.security._namespace import check_namespace

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisTwoFactorStore"]

_SHARDS: Final = 64

# A version that is in place already means that the answer to an earlier sending was lost: sending again is safe.
_REPLACE: Final = """
local present = redis.call('HGET', KEYS[1], ARGV[1])
local found = present and string.match(present, '^([^\\n]*)\\n') or ''
if found == ARGV[3] or (ARGV[4] == '' and not present) then return 1 end
if found ~= ARGV[2] then return 0 end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. '\\n' .. ARGV[4])
end
return 1
"""


# HSCAN sends the records along; nobody needs them here.
_SCAN: Final = """
local answer = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found = {answer[1]}
for i = 1, #answer[2], 2 do found[#found + 1] = answer[2][i] end
return found
"""


class RedisTwoFactorStore:
    """Keeps second factors in Redis.

    They are data and not a cache: the server must run with ``maxmemory-policy noeviction`` and persistence
    (``appendonly yes``), or accounts lose their second factor. Where that is not sure, use the database.

    Args:
        url_or_client: a Redis URL or client that does not decode answers.
        namespace: prefix of the keys.
        store_budget: seconds one answer may take.
        allow_plaintext: whether clear text may leave this machine.
        clock: for tests.

    Raises:
        ConfigurationError: an unusable URL, client or namespace.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike,
        *,
        namespace: str = "mks",
        store_budget: float = 0.1,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_namespace(namespace)
        self._client = RedisClient(
            url_or_client, store_budget=store_budget, allow_plaintext=allow_plaintext, clock=clock
        )
        self._replace = self._client.script(_REPLACE)
        self._scan = self._client.script(_SCAN)
        self._prefix = f"{namespace}:two-factor:"

    def load(self, user_id: str, /) -> StoredFactor | None:
        """The record of a user, or ``None``."""
        stored = self._client.call("HGET", self._key(user_id), user_id, idempotent=True)
        if stored is None:
            return None
        version, _, data = stored.partition(b"\n")
        return StoredFactor(version.decode("ascii"), data)

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write or remove a record if its version is still the expected one."""
        args: list[str | bytes] = [user_id, expected or "", version, data or b""]
        return bool(self._replace.run([self._key(user_id)], args, idempotent=True))

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """User ids, shard by shard."""
        shard, position = (0, "0") if cursor is None else _parsed(cursor)
        found: list[str] = []
        while shard < _SHARDS and len(found) < limit:
            following, *users = self._scan.run([self._shard(shard)], [position, limit], idempotent=True)
            found += [user_id.decode("utf-8") for user_id in users]
            position = following.decode("ascii")
            if position == "0":
                shard += 1
        return found, f"{shard}:{position}" if shard < _SHARDS else None

    def ping(self) -> bool:
        """Whether the server answers."""
        return self._client.ping()

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RedisTwoFactorStore({self._client!r})"

    def _key(self, user_id: str) -> str:
        return self._shard(zlib.crc32(user_id.encode("utf-8")) % _SHARDS)

    def _shard(self, number: int) -> str:
        return f"{self._prefix}{{{number:02}}}"


def _parsed(cursor: str) -> tuple[int, str]:
    shard, _, position = cursor.partition(":")
    if not (shard.isdecimal() and position.isdecimal()):
        raise ConfigurationError("cursor must be one that scan returned", parameter="cursor")
    return int(shard), position
