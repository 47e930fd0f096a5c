"""What processes agree on in Redis: who told of an alert, and how many repetitions nobody has told yet.

For each kind of alert a hash holds the end of its window and the repetitions that wait to be told, and a sorted set
the processes that still count some. The scripts read the server's clock, so the processes' clocks do not matter.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import uuid4

from mks_hardening._core.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["Moment", "SharedStore"]

Moment: TypeAlias = Literal["window", "flush", "close"]

# A process asks again when its window ends; one that does not within a minute more is gone.
_GRACE: Final = 60
# Repetitions that nobody could tell wait this long for the next alert of their kind.
_KEEP: Final = 86_400

_ADMIT: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if tonumber(redis.call('HGET', KEYS[1], 'until') or '0') > now then return -1 end
local untold = tonumber(redis.call('HGET', KEYS[1], 'untold') or '0')
redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[1]), 'untold', 0, 'digest', 0)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return untold
"""

_COLLECT: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[5] == 'close' or (ARGV[5] == 'window' and ARGV[6] == '0') then
    redis.call('ZREM', KEYS[2], ARGV[2])
else
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), ARGV[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
local untold = redis.call('HINCRBY', KEYS[1], 'untold', ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[4])
if untold == 0 then return 0 end
local over = tonumber(redis.call('HGET', KEYS[1], 'until') or '0') <= now
if not over then
    if ARGV[5] == 'window' or redis.call('HGET', KEYS[1], 'digest') == '1' then return 0 end
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
    local others = redis.call('ZCARD', KEYS[2])
    if redis.call('ZSCORE', KEYS[2], ARGV[2]) then others = others - 1 end
    if others > 0 then return 0 end
end
redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[1]), 'untold', 0, 'digest', 1)
return untold
"""


class SharedStore:
    """The agreement of all processes that send to one destination.

    Args:
        url_or_client: Redis.
        destination: what makes the destination; only a hash of it is stored.
        window: seconds in which one alert of a kind, and one digest, are enough for all processes.
        clock: monotonic clock of the client's breaker.
    """

    def __init__(
        self, url_or_client: str | RedisLike | RedisClient, *, destination: str, window: float, clock: Clock
    ) -> None:
        self._owned = not isinstance(url_or_client, RedisClient)
        self._client = (
            url_or_client
            if isinstance(url_or_client, RedisClient)
            else RedisClient(url_or_client, name="redis", clock=clock)
        )
        self._admit = self._client.script(_ADMIT)
        self._collect = self._client.script(_COLLECT)
        self._prefix = f"mks:alerts:{{{blake2b(destination.encode(), digest_size=8).hexdigest()}}}"
        # A little shorter than the windows in the processes, which begin before they ask here.
        self._window = max(1, int(window * 950))
        self._alive = int((window + _GRACE) * 1000)
        self._salt = uuid4().hex

    def admit(self, fingerprint: str) -> int | None:
        """Ask to tell of an alert.

        Returns:
            The repetitions that nobody has told, to be told with it; -1 when another process has told of the alert;
            ``None`` when the store does not answer.
        """
        return self._run("admit", fingerprint, ())

    def collect(self, fingerprint: str, number: int, *, moment: Moment) -> int | None:
        """Hand over repetitions, and ask to tell of all that nobody has told.

        Args:
            fingerprint: of the alert.
            number: repetitions counted in this process since the last time.
            moment: why it is asked: the window ended, or somebody wants to know now, or this process ends.

        Returns:
            The repetitions to tell; 0 when it is not yet the time or another process will; ``None`` when the store
            does not answer, and nothing was handed over.
        """
        return self._run("collect", fingerprint, (moment, number))

    def close(self) -> None:
        """Give the connections back, unless they are somebody else's."""
        if self._owned:
            self._client.close()

    def _run(
        self, what: Literal["admit", "collect"], fingerprint: str, more: tuple[object, ...]
    ) -> int | None:
        script = self._admit if what == "admit" else self._collect
        # The process id keeps a forked child apart from its parent.
        member = f"{self._salt}:{os.getpid()}"
        arguments = (self._window, member, self._alive, _KEEP, *more)
        keys = (f"{self._prefix}:{fingerprint}", f"{self._prefix}:{fingerprint}:alive")
        try:
            return int(script.run(keys, arguments, token=uuid4().hex))
        except BackendUnavailableError:
            return None
