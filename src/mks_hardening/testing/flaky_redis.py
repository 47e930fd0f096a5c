"""A Redis client that fails on demand."""

from __future__ import annotations

from typing import Any, Literal

from mks_hardening._core.checks import offers
from mks_hardening._core.optional_imports import optional
from mks_hardening.protocols import RedisLike

__all__ = ["FlakyRedis"]

Fault = Literal["refused", "reset", "timeout", "lost_reply"]


class FlakyRedis:
    """Stands before a client and breaks the next commands; everything else reaches it.

    Args:
        client: the client behind; a fresh ``fakeredis`` when left out.

    Attributes:
        commands: names of the commands that arrived, the broken ones too.

    Raises:
        MissingDependencyError: no client was given and fakeredis is not installed.
    """

    def __init__(self, client: RedisLike | None = None) -> None:
        self.commands: list[str] = []
        self._faults: list[Fault] = []
        self._client = (
            _fake()
            if client is None
            else offers(client, "execute_command", parameter="client", kind="a client of Redis")
        )

    def fail(self, fault: Fault, *, times: int = 1) -> None:
        """Break the next commands.

        Args:
            fault: ``refused`` or ``reset`` (never sent), ``timeout`` (no answer), or ``lost_reply`` (carried out,
                and the answer lost).
            times: how many commands.
        """
        faults: list[Fault] = [fault] * times
        self._faults.extend(faults)

    def heal(self) -> None:
        """Break nothing any more."""
        self._faults.clear()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, or break as told.

        Raises:
            OSError: the next fault that was asked for: refused, reset, without an answer or with the answer lost.
        """
        self.commands.append(str(args[0]))
        fault = self._faults.pop(0) if self._faults else None
        if fault == "refused":
            raise ConnectionRefusedError("refused on demand")
        if fault == "reset":
            raise ConnectionResetError("reset on demand")
        if fault == "timeout":
            raise TimeoutError("no answer on demand")
        answer = self._client.execute_command(*args, **options)
        if fault == "lost_reply":
            raise ConnectionResetError("answer lost on demand")
        return answer

    def __repr__(self) -> str:
        return f"FlakyRedis(faults={self._faults})"


def _fake() -> RedisLike:
    with optional("fakeredis", extra="testing"):
        import fakeredis
    client: RedisLike = fakeredis.FakeRedis()
    return client
