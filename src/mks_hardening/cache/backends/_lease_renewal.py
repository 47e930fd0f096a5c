"""Renew the leases of this process while values are computed; the rules are in ``cache/_compute_lease.py``."""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from mks_hardening._core.backend.redis_operations import Script
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.cache._compute_lease import (
    LEASE_ALIVE_MS,
    LEASE_KEPT_MS,
    LEASE_RENEWAL_INTERVAL,
    ComputeLease,
)
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import Clock

__all__ = ["LeaseRenewal"]

_IDLE_ROUNDS: Final = 25  # a thread without leases waits five seconds for the next one


class LeaseRenewal:
    """Renews leases in a background thread; see ``lua/renew.lua``.

    Args:
        script: the script that renews one lease.
        clock: clock that limits how long a lease is renewed.
    """

    __slots__ = ("__weakref__", "_clock", "_idle", "_script", "_thread", "_watched")

    def __init__(self, script: Script, *, clock: Clock) -> None:
        self._script = script
        self._clock = clock
        self._thread = IntervalThread(self._renew_all, every=LEASE_RENEWAL_INTERVAL, name="mks-cache-leases")
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start empty in a forked child: the leases belong to the parent."""
        self._idle = 0
        self._watched: WeakKeyDictionary[ComputeLease, tuple[bytes, bytes, float]] = WeakKeyDictionary()

    def watch(self, lease: ComputeLease, *, name: bytes, token: bytes, longest: float) -> None:
        """Renew a lease until it is forgotten, its holder drops it, or ``longest`` seconds have passed."""
        self._watched[lease] = (name, token, self._clock.monotonic() + longest)
        self._thread.start()

    def forget(self, lease: ComputeLease) -> None:
        """Stop renewing a lease, whose holder has finished."""
        self._watched.pop(lease, None)

    def _renew_all(self) -> bool:
        """Renew all leases; return whether the thread has to continue."""
        now = self._clock.monotonic()
        # A copy with strong references: a weak dictionary must not lose entries during the iteration.
        leases = [(lease, terms) for lease, terms in list(self._watched.items())]
        for lease, (name, token, end) in leases:
            try:
                if now >= end or not self._script.run(
                    [name], [token, LEASE_ALIVE_MS, LEASE_KEPT_MS], idempotent=True
                ):
                    self.forget(lease)
            except BackendUnavailableError:
                break  # the next round retries
        self._idle = 0 if leases else self._idle + 1
        return self._idle < _IDLE_ROUNDS
