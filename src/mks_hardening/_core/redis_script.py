"""Lua scripts, sent by hash, and one-time operations that survive a lost reply."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from mks_hardening._core.redis_faults import is_missing_script

__all__ = ["Script"]

_ONCE_TTL_MS: Final = 60_000

# Fakes lack cmsgpack; JSON there.
_ONCE: Final = """
local once = KEYS[#KEYS]
local pack = cmsgpack and cmsgpack.pack or cjson.encode
local unpack = cmsgpack and cmsgpack.unpack or cjson.decode
local seen = redis.call('GET', once)
if seen then return unpack(seen) end
local function work(KEYS, ARGV)
%s
end
local result = work(KEYS, ARGV)
redis.call('SET', once, pack(result), 'PX', ARGV[#ARGV])
return result
"""


class _Caller(Protocol):
    def call(self, *command: Any, idempotent: bool = ...) -> Any: ...

    async def acall(self, *command: Any, idempotent: bool = ...) -> Any: ...


class Script:
    """A Lua script of one client.

    With a ``token`` the run is a one-time operation: its answer is kept on the server for a minute beside the first
    key, and a run with the same token repeats it.
    """

    __slots__ = ("_client", "_once_sha", "_once_source", "_sha", "_source")

    def __init__(self, client: _Caller, source: str) -> None:
        self._client = client
        self._source = source
        self._sha = _sha1(source)
        self._once_source = _ONCE % source
        self._once_sha = _sha1(self._once_source)

    def run(
        self, keys: Sequence[str], args: Sequence[Any], *, idempotent: bool = False, token: str | None = None
    ) -> Any:
        """Run it.

        Raises:
            BackendUnavailableError: no usable answer within the budget.
        """
        short, full = self._commands(keys, args, token)
        safe = idempotent or token is not None
        try:
            return self._client.call(*short, idempotent=safe)
        except Exception as error:
            if not is_missing_script(error):
                raise
        return self._client.call(*full, idempotent=safe)

    async def arun(
        self, keys: Sequence[str], args: Sequence[Any], *, idempotent: bool = False, token: str | None = None
    ) -> Any:
        """``run`` for asyncio."""
        short, full = self._commands(keys, args, token)
        safe = idempotent or token is not None
        try:
            return await self._client.acall(*short, idempotent=safe)
        except Exception as error:
            if not is_missing_script(error):
                raise
        return await self._client.acall(*full, idempotent=safe)

    def _commands(
        self, keys: Sequence[str], args: Sequence[Any], token: str | None
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        sha, source = self._sha, self._source
        if token is not None:
            sha, source = self._once_sha, self._once_source
            keys, args = [*keys, _once_key(keys[0], token)], [*args, _ONCE_TTL_MS]
        rest = (len(keys), *keys, *args)
        return ("EVALSHA", sha, *rest), ("EVAL", source, *rest)


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _once_key(key: str, token: str) -> str:
    """A key in the same cluster slot as ``key``."""
    tag = key[key.index("{") + 1 : key.index("}")] if "{" in key and "}" in key else key
    return f"{{{tag}}}:once:{token}"
