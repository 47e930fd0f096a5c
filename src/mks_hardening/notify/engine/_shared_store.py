"""Coordination of processes through Redis: which one sends an alert, and how many repetitions are unreported.

For each kind of alert, a hash stores the end of its window and the unreported repetitions, and a sorted set stores
the processes that are still counting. The scripts use the server's clock, so the processes' clocks do not matter.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import uuid4

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_operations import Script
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["Moment", "SharedStore"]

_PACKAGE: Final = __name__.rpartition(".")[0]

Moment: TypeAlias = Literal["hand over", "window", "flush", "close"]

# A process queries again when its window ends; if it does not within another minute, it counts as ended.
_GRACE: Final = 60
# Repetitions that no process could report are stored this long (seconds) for the next alert of their kind.
_EXPIRE: Final = 86_400
# Only the worker waits for it, so it may take longer than in a request.
_BUDGET: Final = 0.25
# The last query of a process: if it fails, the process still counts as one that will report, and the repetitions
# of the others wait for the next alert of their kind.
_LAST_BUDGET: Final = 1.0


class SharedStore:
    """Shared state of all processes that send to one destination.

    Args:
        url_or_client: Redis: a URL, a client of this package, or one of redis-py.
        destination: identifies the destination; only its hash is stored.
        window: seconds in which all processes together send one alert of a kind and one digest.
        clock: monotonic clock of the client's circuit breaker.
        budget: seconds for one query; the last one of a process may take a second.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        destination: str,
        window: float,
        clock: Clock,
        budget: float = _BUDGET,
    ) -> None:
        self._client = RedisClient(url_or_client, name="alerts", store_budget=budget, clock=clock)
        self._admit = self._client.script(lua_source(_PACKAGE, "lua/shared_admit.lua"))
        self._last_client = RedisClient(self._client, name="alerts", store_budget=max(budget, _LAST_BUDGET))
        collect = lua_source(_PACKAGE, "lua/shared_collect.lua")
        self._collect = self._client.script(collect)
        self._collect_last = self._last_client.script(collect)
        self._prefix = f"mks:alerts:{{{blake2b(destination.encode(), digest_size=8).hexdigest()}}}"
        # Slightly shorter than the windows in the processes, which begin before their query.
        self._window = max(1, int(window * 950))
        self._alive = int((window + _GRACE) * 1000)
        self._salt = uuid4().hex

    def admit(self, fingerprint: str) -> int | None:
        """Request to send an alert.

        Returns:
            The unreported repetitions to send with it; -1 if another process has sent the alert; ``None`` if the
            store is unavailable.
        """
        return self._run(self._admit, fingerprint, ())

    def collect(self, fingerprint: str, number: int, *, moment: Moment) -> int | None:
        """Hand over repetitions, and request to report all unreported ones.

        Args:
            fingerprint: fingerprint of the alert.
            number: repetitions counted in this process since the last call.
            moment: reason for the call. ``hand over``: the window has ended, and the other processes get time to
                hand over theirs. ``window``: that time has passed. ``flush``: the caller wants a report now.
                ``close``: this process ends.

        Returns:
            The repetitions to report; 0 if it is too early or another process will report them; ``None`` if the
            store is unavailable, and nothing was handed over.
        """
        script = self._collect_last if moment == "close" else self._collect
        return self._run(script, fingerprint, (moment, number))

    def close(self) -> None:
        """Close the connections; a client that was passed in stays open."""
        self._last_client.close()
        self._client.close()

    def _run(self, script: Script, fingerprint: str, more: tuple[object, ...]) -> int | None:
        # The process id distinguishes a forked child from its parent.
        member = f"{self._salt}:{os.getpid()}"
        arguments = (self._window, member, self._alive, _EXPIRE, *more)
        keys = (f"{self._prefix}:{fingerprint}", f"{self._prefix}:{fingerprint}:alive")
        try:
            # With an idempotency token: a retry after a lost response must not return "sent by another process".
            return int(script.run(keys, arguments, token=uuid4().hex))
        # Two alerts of one kind are better than none: without the store every process decides by itself.
        except BackendUnavailableError:
            return None
