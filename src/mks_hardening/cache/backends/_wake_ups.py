"""Wait until the holder of a lease has finished: woken by Redis where that is possible, by polling otherwise."""

from __future__ import annotations

from random import random
from typing import Final

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_operations import Pipeline
from mks_hardening._core.operations import Op, Pause
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["WAKE_MS", "LeaseWait", "WakeUps"]

WAKE_MS: Final = 1000
"""Milliseconds that the list of a finished lease exists: for a caller between its look and its wait."""

_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.05
_LONGEST_BLOCK: Final = 0.1
"""Nobody pushes when a key is invalidated or when a process of an earlier release has finished."""
_MOST_BLOCKED: Final = 16
"""Connections of one cache that may be waiting; further callers poll."""


class WakeUps:
    """The waits of one cache.

    Args:
        client: the client.
    """

    __slots__ = ("__weakref__", "_blocked", "_client", "_is_possible")

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._is_possible = client.is_probed  # a fake would block all its callers
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the number of waiting callers in a forked child; they wait in the parent."""
        self._blocked = 0

    def block(self, name: bytes, seconds: float) -> Op[bool]:
        """Wait until a list has an element, without removing it; return False if no further caller may block."""
        if not self._is_possible or self._blocked >= _MOST_BLOCKED:
            return False
        self._blocked += 1
        try:
            # It must end well before the call times out.
            limit = min(seconds, _LONGEST_BLOCK, self._client.budget / 2)
            command = ("BLMOVE", name, name, "LEFT", "LEFT", f"{limit:.3f}")
            yield Pipeline(self._client, [command], idempotent=True, patient=True)
        except BackendUnavailableError as error:
            if error.reason == "denied":
                self._is_possible = False  # an ACL without blocking commands
            elif error.reason != "timeout":  # of which the server has used half: the next command shows
                raise
        except Exception:  # noqa: BLE001 - a server without this command; polling works everywhere
            self._is_possible = False
        finally:
            self._blocked -= 1
        return self._is_possible


class LeaseWait:
    """The waits of one caller for one lease; first by wake-up, and in turn by pauses.

    Args:
        wake_ups: the waits of the cache.
        name: name of the list.
    """

    __slots__ = ("_name", "_pause", "_wake_ups", "_was_woken")

    def __init__(self, wake_ups: WakeUps, name: bytes) -> None:
        self._wake_ups = wake_ups
        self._name = name
        self._pause = 0.0
        self._was_woken = False

    def wait(self, seconds: float) -> Op[None]:
        """Wait until it is time to look again, for at most ``seconds``."""
        # Woken without a result: another caller was faster, or the list is left from an earlier computation.
        if not self._was_woken:
            self._was_woken = yield from self._wake_ups.block(self._name, seconds)
            if self._was_woken:
                return
        self._was_woken = False
        self._pause = min(_LONGEST_PAUSE, self._pause * 1.5) or _SHORTEST_PAUSE
        yield Pause(min(seconds, self._pause * (0.5 + random())))  # noqa: S311 - spreads polls, protects nothing
