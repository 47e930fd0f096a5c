"""The processes that share a server: how many there are, and whether the server still has its data.

Each process announces itself at intervals. The server replies with the number of processes and with the generation
of its data: a newer generation means that it has lost data.
"""

from __future__ import annotations

import secrets
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.operations import Op
    from mks_hardening.protocols import Clock

__all__ = ["Announcement", "Membership", "announcement_call"]

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
"""Maximum seconds between two announcements; the first intervals are shorter, as the others are starting too."""
_LIFETIME: Final = 30
"""Seconds after the last announcement until a process counts as gone."""
_LONGEST_REJOINING: Final = 1.5
"""Seconds that a process waits for the others after an outage: each probes once a second."""


class Announcement(NamedTuple):
    """The server's reply to an announcement.

    Attributes:
        workers: number of known processes.
        number: index of this process among them, from 0.
        generation: generation of the data.
        recent: number of processes that announced themselves within the requested number of milliseconds.
    """

    workers: int
    number: int
    generation: int
    recent: int


def announcement_call(client: RedisClient, prefix: str) -> Callable[..., Op[Announcement]]:
    """Return the call that announces a process to Redis; its keys begin with ``prefix``."""
    # Imported here, so that a limiter in memory, which has no other processes, does not load the client.
    from mks_hardening._core.backend.lua_files import lua_source
    from mks_hardening._core.backend.redis_operations import RunScript

    script = client.script(lua_source("mks_hardening.security.rate_limits", "lua/presence.lua"))
    keys = [f"{prefix}{{presence}}:{name}" for name in ("workers", "generation")]

    def announce(*arguments: object) -> Op[Announcement]:
        return Announcement(*(yield RunScript(script, keys, arguments, idempotent=True)))

    return announce


class Membership:
    """What this process knows of the processes that share a server, itself included.

    Args:
        send: announces a process (name, lifetime in seconds, known generation, period of ``recent`` in
            milliseconds).
        clock: monotonic clock.
        expected: minimum number of processes.
        waits: whether to wait for the other processes after an outage; then ``announce`` must be called until
            ``is_rejoining`` is false.

    Attributes:
        workers: number of processes that share the server, as far as known.
        number: index of this process among them, from 0.
        due: time of the next announcement, on the clock; in the past while the server may be unavailable.
        apart_until: time until which this process continues with its share although the server may be available
            again, on the clock: until it and the other processes have flushed what they did during the outage.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_expected",
        "_generation",
        "_lost_at",
        "_minimum_until",
        "_name",
        "_pause",
        "_send",
        "_unsure",
        "_waits",
        "apart_until",
        "due",
        "number",
        "workers",
    )

    def __init__(
        self,
        send: Callable[[str, int, int, int], Op[Announcement]],
        clock: Clock,
        *,
        expected: int = 1,
        waits: bool = False,
    ) -> None:
        self._send = send
        self._waits = waits
        self._clock = clock
        self._expected = self.workers = expected
        self._generation = 0
        self.number = 0
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start as a new process in a forked child."""
        self._name = secrets.token_hex(8)
        self.due = 0.0
        self._unsure = False
        self._lost_at = 0.0
        self.apart_until = 0.0
        self._minimum_until = 0.0
        self._pause = _FIRST_PAUSE

    def share_of(self, whole: int) -> int:
        """Return this process's share of a number; the shares of all processes add up to it."""
        # Rounded so that the shares add up to the whole; `whole // workers` would lose the rest.
        return whole * (self.number + 1) // self.workers - whole * self.number // self.workers

    def mark_unavailable(self) -> None:
        """Record that the server was unavailable: announce this process and check the data at the next contact."""
        # Due until one announcement succeeds: a caller that skipped it could not know whether the server has lost
        # its data, and would not restore what it knew before.
        self.due = 0.0
        if not self._unsure and not self.is_rejoining():
            self._lost_at = self._clock.monotonic()
        self._unsure = True
        if self._waits:
            self.apart_until = inf

    def is_rejoining(self) -> bool:
        """Return whether the server is back but other processes may not have flushed their pending writes yet."""
        return not self._unsure and self._clock.monotonic() < self.apart_until

    def is_due(self) -> bool:
        """Return whether this process has to announce itself."""
        return self._clock.monotonic() >= self.due

    def announce(self) -> Op[bool]:
        """Announce this process and record the reply; return whether the server has lost data since the last one.

        Raises:
            BackendUnavailableError: the server did not respond.
        """
        now, unsure = self._clock.monotonic(), self._unsure
        due = now + self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        if not unsure:
            self.due = due  # before the round trip, so that only one thread announces
        outage = now - self._lost_at if unsure or self.is_rejoining() else 0.0
        try:
            reply = yield from self._send(self._name, _LIFETIME, self._generation, round(1000 * outage))
        except BackendUnavailableError:
            self.due = 0.0
            raise
        if unsure:
            self.due = due
        # An older generation comes from a reply that was already in transit.
        is_lost = 0 < self._generation < reply.generation
        self._generation = max(self._generation, reply.generation)
        # The server has lost its list of processes too; those that were on it are about to come back.
        if is_lost or outage:
            self._minimum_until = now + _LIFETIME
        # Processes that are still starting have not announced themselves yet.
        least = self.workers if now < self._minimum_until else self._expected
        self.workers, self.number = max(reply.workers, least), reply.number
        if reply.recent >= self.workers:
            self.apart_until = 0.0
        elif self._unsure and self._waits:
            self.apart_until = now + _LONGEST_REJOINING
        self._unsure = False
        return is_lost
