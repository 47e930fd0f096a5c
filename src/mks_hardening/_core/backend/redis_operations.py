"""Round trips to Redis as effects of operations (``_core/operations.py``): commands, Lua scripts, scans.

Scripts are sent by hash; a run with a token is a one-time operation that survives a lost response.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias

from mks_hardening._core.backend.redis_errors import is_missing_script
from mks_hardening._core.backend.redis_types import Answer, Command
from mks_hardening._core.resilience.budget import request_budget
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient

__all__ = ["SCAN_START", "Pipeline", "RunScript", "ScanPage", "ScanPlace", "Script"]

ScanPlace: TypeAlias = tuple[str, bytes]
"""Name of a node (empty for all nodes, or the only one) and its cursor."""

SCAN_START: Final[tuple[ScanPlace, ...]] = (("", b"0"),)

_PATIENCE: Final = 60.0
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


class Pipeline:
    """Redis commands in one round trip.

    ``patient`` is for work that may exceed a request's store budget, such as maintenance or waiting for a lock
    holder; it allows 60 s.
    """

    __slots__ = ("_client", "_commands", "_idempotent", "_patient")

    def __init__(
        self,
        client: RedisClient,
        commands: Sequence[Command],
        *,
        idempotent: bool = False,
        patient: bool = False,
    ) -> None:
        self._client = client
        self._commands = commands
        self._idempotent = idempotent
        self._patient = patient

    def run(self) -> Answer:
        """Send the commands and return their responses."""
        if not self._patient:  # the usual case, without an empty context manager
            return self._send()
        with request_budget(_PATIENCE):
            return self._send()

    async def arun(self) -> Answer:
        """Asynchronous ``run``."""
        if not self._patient:
            return await self._asend()
        with request_budget(_PATIENCE):
            return await self._asend()

    def _send(self) -> list[Answer]:
        if len(self._commands) == 1:
            return [self._client.call(*self._commands[0], idempotent=self._idempotent)]
        return self._client.pipeline(self._commands, idempotent=self._idempotent)

    async def _asend(self) -> list[Answer]:
        if len(self._commands) == 1:
            return [await self._client.acall(*self._commands[0], idempotent=self._idempotent)]
        return await self._client.apipeline(self._commands, idempotent=self._idempotent)


class Script:
    """A Lua script of one client.

    With a ``token``, the run is a one-time operation: its result is stored on the server for one minute in a key
    next to the first key, and another run with the same token returns it.
    """

    __slots__ = ("_client", "_once_sha", "_once_source", "_sha", "_source")

    def __init__(self, client: RedisClient, source: str) -> None:
        self._client = client
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


class RunScript:
    """One run of a Lua script; parameters as for ``Pipeline``, ``token`` as for ``Script.run``."""

    __slots__ = ("_args", "_idempotent", "_keys", "_patient", "_script", "_token")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        args: Sequence[object],
        *,
        idempotent: bool = False,
        patient: bool = False,
        token: str | None = None,
    ) -> None:
        self._token = token
        self._script = script
        self._keys = keys
        self._args = args
        self._idempotent = idempotent
        self._patient = patient

    def run(self) -> Answer:
        """Run the script and return its result."""
        if not self._patient:  # the usual case, without an empty context manager
            return self._script.run(self._keys, self._args, idempotent=self._idempotent, token=self._token)
        with request_budget(_PATIENCE):
            return self._script.run(self._keys, self._args, idempotent=self._idempotent, token=self._token)

    async def arun(self) -> Answer:
        """Asynchronous ``run``."""
        with request_budget(_PATIENCE) if self._patient else nullcontext():
            return await self._script.arun(
                self._keys, self._args, idempotent=self._idempotent, token=self._token
            )


class ScanPage:
    """One page of keys that match a pattern; a cluster is scanned one primary after the other.

    Returns the places to continue from (empty at the end) and the keys.
    """

    __slots__ = ("_client", "_count", "_pattern", "_places")

    def __init__(
        self, client: RedisClient, pattern: bytes, places: Sequence[ScanPlace], *, count: int
    ) -> None:
        self._client = client
        self._pattern = pattern
        self._places = places
        self._count = count

    def run(self) -> tuple[list[ScanPlace], list[bytes]]:
        """Send the command and return the next places and the keys."""
        (node, cursor), *later = self._places
        with request_budget(_PATIENCE):
            answer = self._client.call(*self._command(cursor), idempotent=True, node=node)
        return _scanned(node, answer, later)

    async def arun(self) -> tuple[list[ScanPlace], list[bytes]]:
        """Asynchronous ``run``."""
        (node, cursor), *later = self._places
        with request_budget(_PATIENCE):
            answer = await self._client.acall(*self._command(cursor), idempotent=True, node=node)
        return _scanned(node, answer, later)

    def _command(self, cursor: bytes) -> tuple[object, ...]:
        return "SCAN", cursor, "MATCH", self._pattern, "COUNT", self._count


def _scanned(node: str, answer: Answer, later: list[ScanPlace]) -> tuple[list[ScanPlace], list[bytes]]:
    cursors: Mapping[str, int | bytes] | int | bytes
    cursors, names = answer
    if not isinstance(cursors, Mapping):  # a single server; a cluster returns the cursor of each node
        cursors = {node: cursors}
    # redis-py's cluster clients convert the cursors to numbers.
    ahead = [(name, b"%d" % at if isinstance(at, int) else at) for name, at in cursors.items()]
    return [*(place for place in ahead if place[1] != b"0"), *later], list(names)


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _once_key(key: str, token: str) -> str:
    """Return a key in the same hash slot as ``key``."""
    tag = key[key.index("{") + 1 : key.index("}")] if "{" in key and "}" in key else key
    return f"{{{tag}}}:once:{token}"


def _text(key: str | bytes) -> str:
    return key.decode("utf-8", "surrogatepass") if isinstance(key, bytes) else key
