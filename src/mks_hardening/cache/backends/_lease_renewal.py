"""Leases of this process, kept alive while somebody computes under them.

A lease names the moment until which its holder is surely alive. The holder's process puts that moment off several
times before it comes; when the process dies nobody does, and another one takes the lease a second later. A holder
that was merely held up (stopped, or starved by a computation that never gave the interpreter away) still keeps what
it computed, if nobody has taken the lease meanwhile: the moment is not the end of the lease in Redis.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from mks_hardening._core.backend.redis_script import Script
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.cache._entry import ComputeLease
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import Clock

__all__ = ["LEASE_ALIVE_MS", "LEASE_KEPT_MS", "LeaseRenewal"]

LEASE_ALIVE_MS: Final = 800
"""How long a holder that says nothing counts as alive: what its death costs the others."""

LEASE_KEPT_MS: Final = 600_000
"""How long a lease is remembered after its holder was last heard of, so that it can still keep its value."""

_EVERY: Final = 0.2
_IDLE_ROUNDS: Final = 25  # a thread with nothing to do waits five seconds for the next lease


class LeaseRenewal:
    """Renews what it was told to watch; see ``lua/renew.lua``.

    Args:
        script: the script that renews one lease.
        clock: source of time for the longest time a lease is renewed.
    """

    __slots__ = ("__weakref__", "_clock", "_idle", "_script", "_thread", "_watched")

    def __init__(self, script: Script, *, clock: Clock) -> None:
        self._script = script
        self._clock = clock
        self._thread = IntervalThread(self._renew_all, every=_EVERY, name="mks-cache-leases")
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """In a forked child: the leases are the parent's."""
        self._idle = 0
        self._watched: WeakKeyDictionary[ComputeLease, tuple[bytes, bytes, float]] = WeakKeyDictionary()

    def watch(self, lease: ComputeLease, *, name: bytes, token: bytes, longest: float) -> None:
        """Keep a lease alive until it is forgotten, dropped by its holder, or ``longest`` seconds are over."""
        self._watched[lease] = (name, token, self._clock.monotonic() + longest)
        self._thread.start()

    def forget(self, lease: ComputeLease) -> None:
        """The holder has finished."""
        self._watched.pop(lease, None)

    def _renew_all(self) -> bool:
        """Whether the thread should stay."""
        now = self._clock.monotonic()
        # A copy, which also holds the leases: a weak dictionary must not lose one while it is walked.
        leases = [(lease, terms) for lease, terms in list(self._watched.items())]
        for lease, (name, token, end) in leases:
            try:
                if now >= end or not self._script.run(
                    [name], [token, LEASE_ALIVE_MS, LEASE_KEPT_MS], idempotent=True
                ):
                    self.forget(lease)
            except BackendUnavailableError:
                break  # the next round tries again
        self._idle = 0 if leases else self._idle + 1
        return self._idle < _IDLE_ROUNDS
