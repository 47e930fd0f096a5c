"""Round trips to Redis as effects of operations (``_core/operations.py``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias

from mks_hardening._core.backend.redis_types import Answer, Command
from mks_hardening._core.resilience.budget import request_budget

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.backend.redis_script import Script

__all__ = ["SCAN_START", "Pipeline", "RunScript", "ScanPage", "ScanPlace"]

ScanPlace: TypeAlias = tuple[str, bytes]
"""Name of a node (empty for all nodes, or the only one) and its cursor."""

SCAN_START: Final[tuple[ScanPlace, ...]] = (("", b"0"),)

_PATIENCE: Final = 60.0


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
        with request_budget(_PATIENCE) if self._patient else nullcontext():
            if len(self._commands) == 1:
                return [self._client.call(*self._commands[0], idempotent=self._idempotent)]
            return self._client.pipeline(self._commands, idempotent=self._idempotent)

    async def arun(self) -> Answer:
        """Asynchronous ``run``."""
        with request_budget(_PATIENCE) if self._patient else nullcontext():
            if len(self._commands) == 1:
                return [await self._client.acall(*self._commands[0], idempotent=self._idempotent)]
            return await self._client.apipeline(self._commands, idempotent=self._idempotent)


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
