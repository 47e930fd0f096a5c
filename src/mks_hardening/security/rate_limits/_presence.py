"""This process among those that share a storage: how many there are, and whether the storage lost what it had."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.operations import Op
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.backend.redis_script import Script
    from mks_hardening.protocols import Clock

__all__ = ["KnownProcesses", "Presence", "presence_script"]

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
"""Seconds between two signs of life; short at first, as the others are starting too."""
_LIFETIME: Final = 30
"""Seconds after which a process that was not heard of is gone."""


_LONGEST_SETTLING: Final = 1.5
"""Seconds that a process waits for the others after an outage: each probes once a second."""


class KnownProcesses(NamedTuple):
    """What a storage answers to a sign of life.

    Attributes:
        workers: how many processes are known.
        number: of this one among them, from 0.
        generation: of the data.
        recent: how many have said so in the last milliseconds.
    """

    workers: int
    number: int
    generation: int
    recent: int


class _Storage(Protocol):
    def presence(self, process: str, lifetime: int, generation: int, last: int, /) -> Op[KnownProcesses]:
        """Be known for so many seconds; with the generation known here, and how far back to count others."""
        ...


def presence_script(client: RedisClient) -> Script:
    """What a storage in Redis runs for ``presence``."""
    return client.script(
        lua_source("mks_hardening.security.rate_limits", "lua/generation.lua", "lua/presence.lua")
    )


class Presence:
    """What was last heard.

    Args:
        storage: what the processes share.
        clock: monotonic clock.
        expected: processes at least.
        waits: whether to settle after an outage; something must call ``keep`` then until it is over.

    Attributes:
        workers: processes that share the storage, as far as is known.
        number: of this one among them, from 0.
        generation: of the data in the storage; 0 before the first answer.
        losses: how often the storage has lost data.
        due: when to say so again, on the clock.
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
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """A forked child is a process of its own."""
        self._name = secrets.token_hex(8)
        self.due = 0.0
        self._unsure = False
        self._lost_at = 0.0
        self._settling_until = 0.0
        self._kept_until = 0.0
        self._pause = _FIRST_PAUSE

    def ask_again(self) -> None:
        """The storage was away: see at the next contact what it still has."""
        self.due = 0.0
        if not self._unsure and not self.is_settling():
            self._lost_at = self._clock.monotonic()
        self._unsure = True

    def is_settling(self) -> bool:
        """Whether the storage is back and other processes have not yet told it what they let pass meanwhile."""
        return bool(self._settling_until) and self._clock.monotonic() < self._settling_until

    def is_returning(self) -> bool:
        """Whether this process goes on with its share although the storage answers again.

        Until it has told the storage what it let pass, and the others have too.
        """
        return self._waits and (self._unsure or self.is_settling())

    def heard(self, generation: int) -> bool:
        """Note the generation of an answer; whether data were lost since the last one."""
        before = self.generation
        # An older one is in an answer that was under way meanwhile.
        if generation <= before:
            return False
        self.generation = generation
        if before:
            self.losses += 1
            self.due = 0.0  # the storage has forgotten its processes too
        return bool(before)

    def generation_of(self, group: str, key: str) -> int:  # noqa: ARG002 - one server has one for all
        """The generation of the data of a key."""
        return self.generation

    def lost_shard(self) -> None:
        """A shard of a cluster has lost data: announce a newer generation, by which all processes hear of it."""
        self.losses += 1
        self.generation += 1
        self.due = 0.0

    def part(self, whole: int) -> int:
        """This process's part; the parts of all of them make the whole."""
        # Rounded so that the parts add up to the whole; `whole // workers` would lose the rest.
        return whole * (self.number + 1) // self.workers - whole * self.number // self.workers

    def is_due(self) -> bool:
        """Whether to say so again."""
        # After an outage everybody asks until one was answered: who went on before could not know whether the
        # storage has lost its data, and would not tell what was before.
        return self._unsure or self._clock.monotonic() >= self.due

    def keep(self) -> Op[None]:
        """Say now and then that this process is there.

        Raises:
            BackendUnavailableError: the storage did not answer.
        """
        # Before the answer, so that one thread asks.
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
        if self.heard(found.generation) or away:
            # Those that were there before are on their way back.
            self._kept_until = now + _LIFETIME
        # Those that are still starting have said nothing yet.
        least = self.workers if now < self._kept_until else self._expected
        self.workers, self.number = max(found.workers, least), found.number
        if found.recent >= self.workers:
            self._settling_until = 0.0
        elif self._unsure and self._waits:
            self._settling_until = now + _LONGEST_SETTLING
        self._unsure = False
