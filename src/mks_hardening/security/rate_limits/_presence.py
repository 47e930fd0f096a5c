"""The processes that share a storage: how many there are, and whether the storage has lost its data."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.operations import Op
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.backend.redis_script import Script
    from mks_hardening.protocols import Clock

__all__ = ["KnownProcesses", "Presence", "presence_script"]

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
"""Maximum seconds between two announcements; the first intervals are shorter, as the others are starting too."""
_LIFETIME: Final = 30
"""Seconds after the last announcement until a process counts as gone."""


_LONGEST_SETTLING: Final = 1.5
"""Seconds that a process waits for the others after an outage: each probes once a second."""


class KnownProcesses(NamedTuple):
    """The storage's reply to an announcement.

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


class _Storage(Protocol):
    def presence(self, process: str, lifetime: int, generation: int, last: int, /) -> Op[KnownProcesses]:
        """Announce a process for ``lifetime`` seconds, with its known generation and the period for ``recent``."""
        ...


def presence_script(client: RedisClient) -> Script:
    """Return the script that implements ``presence`` in Redis."""
    return client.script(
        lua_source("mks_hardening.security.rate_limits", "lua/generation.lua", "lua/presence.lua")
    )


class Presence:
    """The known state of the processes that share a storage, this one included.

    Args:
        storage: the shared storage.
        clock: monotonic clock.
        expected: minimum number of processes.
        waits: whether to wait for the other processes after an outage; then ``keep`` must be called until it ends.

    Attributes:
        workers: number of processes that share the storage, as far as known.
        number: index of this process among them, from 0.
        generation: generation of the data in the storage; 0 before the first reply.
        losses: how often the storage has lost data.
        due: time of the next announcement, on the clock.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_expected",
        "_kept_until",
        "_lost_at",
        "_name",
        "_pause",
        "_settling_until",
        "_storage",
        "_unsure",
        "_waits",
        "due",
        "generation",
        "losses",
        "number",
        "workers",
    )

    def __init__(self, storage: _Storage, clock: Clock, *, expected: int = 1, waits: bool = False) -> None:
        self._storage = storage
        self._waits = waits
        self._clock = clock
        self._expected = self.workers = expected
        self.generation = 0
        self.number = 0
        self.losses = 0
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start as a new process in a forked child."""
        self._name = secrets.token_hex(8)
        self.due = 0.0
        self._unsure = False
        self._lost_at = 0.0
        self._settling_until = 0.0
        self._kept_until = 0.0
        self._pause = _FIRST_PAUSE

    def mark_unavailable(self) -> None:
        """Record that the storage was unavailable: announce this process and check the data at the next contact."""
        self.due = 0.0
        if not self._unsure and not self.is_settling():
            self._lost_at = self._clock.monotonic()
        self._unsure = True

    def is_settling(self) -> bool:
        """Return whether the storage is back but other processes may not have sent their hits of the outage yet."""
        return bool(self._settling_until) and self._clock.monotonic() < self._settling_until

    def is_returning(self) -> bool:
        """Return whether this process continues with its share although the storage is available again.

        That lasts until it and the other processes have sent the hits they allowed during the outage.
        """
        return self._waits and (self._unsure or self.is_settling())

    def record_generation(self, generation: int) -> bool:
        """Record the generation of a reply; return whether data was lost since the previous one."""
        before = self.generation
        # An older generation comes from a reply that was already in transit.
        if generation <= before:
            return False
        self.generation = generation
        if before:
            self.losses += 1
            self.due = 0.0  # the storage has lost its list of processes too
        return bool(before)

    def generation_of(self, group: str, key: str) -> int:  # noqa: ARG002 - a single server has one generation
        """Return the generation of the data of a key."""
        return self.generation

    def record_shard_loss(self) -> None:
        """Record a lost shard of a cluster: announce a newer generation, so that all processes learn of it."""
        self.losses += 1
        self.generation += 1
        self.due = 0.0

    def part(self, whole: int) -> int:
        """Return this process's share of a number; the shares of all processes add up to it."""
        # Rounded so that the parts add up to the whole; `whole // workers` would lose the rest.
        return whole * (self.number + 1) // self.workers - whole * self.number // self.workers

    def is_due(self) -> bool:
        """Return whether this process has to announce itself."""
        # After an outage every caller announces until one succeeds: a caller that skipped it could not know whether
        # the storage has lost its data, and would not restore the earlier hits.
        return self._unsure or self._clock.monotonic() >= self.due

    def keep(self) -> Op[None]:
        """Announce this process and record the reply.

        Raises:
            BackendUnavailableError: the storage did not respond.
        """
        # Before the round trip, so that only one thread announces.
        now = self._clock.monotonic()
        self.due = now + self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        away = now - self._lost_at if self._unsure or self.is_settling() else 0.0
        try:
            found = yield from self._storage.presence(
                self._name, _LIFETIME, self.generation, round(1000 * away)
            )
        except BackendUnavailableError:
            self.due = 0.0
            raise
        if self.record_generation(found.generation) or away:
            # The other processes that were there before are about to come back.
            self._kept_until = now + _LIFETIME
        # Processes that are still starting have not announced themselves yet.
        least = self.workers if now < self._kept_until else self._expected
        self.workers, self.number = max(found.workers, least), found.number
        if found.recent >= self.workers:
            self._settling_until = 0.0
        elif self._unsure and self._waits:
            self._settling_until = now + _LONGEST_SETTLING
        self._unsure = False
