"""This process among those that share a storage: how many there are, and whether the storage lost what it had."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.operations import Op
from mks_hardening._core.process.forked import renew_in_child
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.backend.redis_script import Script
    from mks_hardening.protocols import Clock

__all__ = ["Presence", "presence_script"]

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
"""Seconds between two signs of life; short at first, as the others are starting too."""
_LIFETIME: Final = 30
"""Seconds after which a process that was not heard of is gone."""


class _Storage(Protocol):
    def presence(self, process: str, *, lifetime: int) -> Op[tuple[int, int, bytes]]:
        """Be known for so many seconds: how many processes are, the number of this one, the life of the data."""
        ...


def presence_script(client: RedisClient) -> Script:
    """What a storage in Redis runs for ``presence``."""
    return client.script(lua_source("mks_hardening.security.rate_limits", "lua/presence.lua"))


class Presence:
    """What was last heard.

    Attributes:
        workers: processes that share the storage, as far as is known.
        number: of this one among them, from 0.
        losses: how often the storage came back without its data.
        due: when to say so again, on the clock.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_expected",
        "_life",
        "_name",
        "_pause",
        "_storage",
        "_unsure",
        "due",
        "losses",
        "number",
        "workers",
    )

    def __init__(self, storage: _Storage, clock: Clock, *, expected: int = 1) -> None:
        self._storage = storage
        self._clock = clock
        self._expected = self.workers = expected
        self._life: bytes | None = None
        self.number = 0
        self.losses = 0
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """A forked child is a process of its own."""
        self._name = secrets.token_hex(8)
        self.due = 0.0
        self._unsure = False
        self._pause = _FIRST_PAUSE

    def ask_again(self) -> None:
        """The storage was away: see at the next contact what it still has."""
        self.due = 0.0
        self._unsure = True

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
        self.due = self._clock.monotonic() + self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        try:
            found = yield from self._storage.presence(self._name, lifetime=_LIFETIME)
        except BackendUnavailableError:
            self.due = 0.0
            raise
        known, self.number, life = found
        # Those that are still starting have said nothing yet.
        self.workers = max(known, self._expected)
        # The server makes a new life when it has none: it was restarted empty, flushed, or failed over to a
        # replica without the data.
        if self._life is not None and life != self._life:
            self.losses += 1
        self._life = life
        self._unsure = False
