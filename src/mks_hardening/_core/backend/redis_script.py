"""Lua scripts, sent by hash, and one-time operations that survive a lost response."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mks_hardening._core.backend.redis_errors import is_missing_script
from mks_hardening._core.backend.redis_types import Answer
from mks_hardening._core.operations import Effect
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["Script"]

_ONCE_TTL_MS: Final = 60_000

# Fakes lack cmsgpack and use JSON. The names here must not hide names that the script uses.
_ONCE: Final = """
local once = KEYS[#KEYS]
local once_pack = cmsgpack and cmsgpack.pack or cjson.encode
local once_seen = redis.call('GET', once)
if once_seen then return (cmsgpack and cmsgpack.unpack or cjson.decode)(once_seen) end
local function work(KEYS, ARGV)
%s
end
local result = work(KEYS, ARGV)
redis.call('SET', once, once_pack(result), 'PX', ARGV[#ARGV])
return result
"""


class _Caller(Protocol):
    def call(self, *command: object, idempotent: bool = ...) -> Answer: ...

    async def acall(self, *command: object, idempotent: bool = ...) -> Answer: ...


class Script:
    """A Lua script of one client.

    With a ``token``, the run is a one-time operation: its result is stored on the server for one minute in a key
    next to the first key, and another run with the same token returns it.
    """

    __slots__ = ("_before_load", "_client", "_once_sha", "_once_source", "_sha", "_source")

    def __init__(
        self, client: _Caller, source: str, *, before_load: Callable[[], Effect] | None = None
    ) -> None:
        self._client = client
        self._before_load = before_load
        self._source = source
        self._sha = _sha1(source)
        self._once_source = _ONCE % source
        self._once_sha = _sha1(self._once_source)

    def run(
        self,
        keys: Sequence[str | bytes],
        args: Sequence[object],
        *,
        idempotent: bool = False,
        token: str | None = None,
    ) -> Answer:
        """Run the script.

        Raises:
            BackendUnavailableError: no usable response within the budget.
        """
        sha, source, rest = self._command(keys, args, token)
        safe = idempotent or token is not None
        try:
            return self._client.call("EVALSHA", sha, *rest, idempotent=safe)
        except Exception as error:
            if not is_missing_script(error):
                raise
        if self._before_load is not None:
            self._before_load().run()
        try:
            return self._client.call("EVAL", source, *rest, idempotent=safe)
        except BackendUnavailableError as error:
            # A server that does not know the script now may have run it, lost the response and restarted.
            error.sent = error.sent or safe
            raise

    async def arun(
        self,
        keys: Sequence[str | bytes],
        args: Sequence[object],
        *,
        idempotent: bool = False,
        token: str | None = None,
    ) -> Answer:
        """Asynchronous ``run``."""
        sha, source, rest = self._command(keys, args, token)
        safe = idempotent or token is not None
        try:
            return await self._client.acall("EVALSHA", sha, *rest, idempotent=safe)
        except Exception as error:
            if not is_missing_script(error):
                raise
        if self._before_load is not None:
            await self._before_load().arun()
        try:
            return await self._client.acall("EVAL", source, *rest, idempotent=safe)
        except BackendUnavailableError as error:
            # A server that does not know the script now may have run it, lost the response and restarted.
            error.sent = error.sent or safe
            raise

    def _command(
        self, keys: Sequence[str | bytes], args: Sequence[object], token: str | None
    ) -> tuple[str, str, tuple[object, ...]]:
        """Return hash and text of the script, and the arguments that follow either of them."""
        sha, source = self._sha, self._source
        if token is not None:
            sha, source = self._once_sha, self._once_source
            keys, args = [*keys, _once_key(_text(keys[0]), token)], [*args, _ONCE_TTL_MS]
        return sha, source, (len(keys), *keys, *args)


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _once_key(key: str, token: str) -> str:
    """Return a key in the same hash slot as ``key``."""
    tag = key[key.index("{") + 1 : key.index("}")] if "{" in key and "}" in key else key
    return f"{{{tag}}}:once:{token}"


def _text(key: str | bytes) -> str:
    return key.decode("utf-8", "surrogatepass") if isinstance(key, bytes) else key
