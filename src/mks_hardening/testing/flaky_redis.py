"""A Redis client that fails on demand."""

from __future__ import annotations

from typing import Any, Literal

from mks_hardening._core.checks import offers
from mks_hardening._core.optional_imports import optional
from mks_hardening.protocols import RedisLike

__all__ = ["FlakyRedis"]

Fault = Literal["refused", "reset", "timeout", "lost_reply"]


class FlakyRedis:
    """Proxy for a client that makes the next commands fail on demand; everything else is passed on.

    Args:
        client: the wrapped client; a new ``fakeredis`` by default.

    Attributes:
        commands: names of the received commands, including those that failed.

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
        """Make the next commands fail.

        Args:
            fault: ``refused`` or ``reset`` (never sent), ``timeout`` (no response), or ``lost_reply`` (executed,
                but the response is lost).
            times: number of commands.
        """
        faults: list[Fault] = [fault] * times
        self._faults.extend(faults)

    def heal(self) -> None:
        """Clear the pending faults."""
        self._faults.clear()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, or fail with the next fault.

        Raises:
            OSError: the next fault: refused, reset, no response, or lost response.
        """
        self.commands.append(str(args[0]))
        fault = self._faults.pop(0) if self._faults else None
        if fault == "refused":
            raise ConnectionRefusedError("refused on demand")
        if fault == "reset":
            raise ConnectionResetError("reset on demand")
        if fault == "timeout":
            raise TimeoutError("no response on demand")
        answer = self._client.execute_command(*args, **options)
        if fault == "lost_reply":
            raise ConnectionResetError("response lost on demand")
        return answer

    def __repr__(self) -> str:
        return f"FlakyRedis(faults={self._faults})"


def _fake() -> RedisLike:
    with optional("fakeredis", extra="testing"):
        import fakeredis
    client: RedisLike = fakeredis.FakeRedis()
    return client
