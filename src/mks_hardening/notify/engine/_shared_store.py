"""What processes agree on in Redis: who sends an alert, and how many repetitions nobody has reported yet.

For each kind of alert a hash holds the end of its window and the repetitions not reported yet, and a sorted set
the processes that still count some. The scripts read the server's clock, so the processes' clocks do not matter.
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
    from mks_hardening._core.backend.redis_script import Script
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["Moment", "SharedStore"]

_HERE: Final = __name__.rpartition(".")[0]

Moment: TypeAlias = Literal["hand over", "window", "flush", "close"]

# A process asks again when its window ends; one that does not within a minute more is gone.
_GRACE: Final = 60
# Repetitions that nobody could report wait this long for the next alert of their kind.
_KEEP: Final = 86_400
# Nobody waits for it but the worker, so that it may take longer than in a request.
_BUDGET: Final = 0.25
# The last question of a process: unanswered, it still counts as one that reports, and what the others handed over
# waits for the next alert of its kind.
_LAST_BUDGET: Final = 1.0


class SharedStore:
    """The agreement of all processes that send to one destination.

    Args:
        url_or_client: Redis: a URL, a client of ours, or one of redis-py.
        destination: what makes the destination; only a hash of it is stored.
        window: seconds in which one alert of a kind, and one digest, are enough for all processes.
        clock: monotonic clock of the client's breaker.
        budget: seconds for one question; the last one of a process may take a second.
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
        self._admit = self._client.script(lua_source(_HERE, "lua/shared_admit.lua"))
        self._patient = RedisClient(self._client, name="alerts", store_budget=max(budget, _LAST_BUDGET))
        collect = lua_source(_HERE, "lua/shared_collect.lua")
        self._collect = self._client.script(collect)
        self._collect_last = self._patient.script(collect)
        self._prefix = f"mks:alerts:{{{blake2b(destination.encode(), digest_size=8).hexdigest()}}}"
        # A little shorter than the windows in the processes, which begin before they ask here.
        self._window = max(1, int(window * 950))
        self._alive = int((window + _GRACE) * 1000)
        self._salt = uuid4().hex

    def admit(self, fingerprint: str) -> int | None:
        """Ask to send an alert.

        Returns:
            The repetitions that nobody has reported, to go with it; -1 when another process has sent the alert;
            ``None`` when the store does not answer.
        """
        return self._run(self._admit, fingerprint, ())

    def collect(self, fingerprint: str, number: int, *, moment: Moment) -> int | None:
        """Hand over repetitions, and ask to report all that nobody has reported.

        Args:
            fingerprint: of the alert.
            number: repetitions counted in this process since the last time.
            moment: why it is asked. ``hand over``: the window has ended, and the others are given the time to hand
                theirs over too. ``window``: that time is over. ``flush``: somebody wants to know now. ``close``:
                this process ends.

        Returns:
            The repetitions to report; 0 when it is not yet the time or another process will; ``None`` when the
            store does not answer, and nothing was handed over.
        """
        script = self._collect_last if moment == "close" else self._collect
        return self._run(script, fingerprint, (moment, number))

    def close(self) -> None:
        """Give the connections back; a client that was handed in stays open."""
        self._patient.close()
        self._client.close()

    def _run(self, script: Script, fingerprint: str, more: tuple[object, ...]) -> int | None:
        # The process id keeps a forked child apart from its parent.
        member = f"{self._salt}:{os.getpid()}"
        arguments = (self._window, member, self._alive, _KEEP, *more)
        keys = (f"{self._prefix}:{fingerprint}", f"{self._prefix}:{fingerprint}:alive")
        try:
            # With a token: a lost answer to "may I send it?" must not be answered "another has" the second time.
            return int(script.run(keys, arguments, token=uuid4().hex))
        # Two alerts of one kind are better than none: without the store every process decides for itself.
        except BackendUnavailableError:
            return None
