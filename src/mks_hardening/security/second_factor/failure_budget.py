"""Limits on wrong codes: a lock for the client that guesses, and a limit for the account.

Pure rules over a plain value. Each client has its own budget, so that somebody who knows a password and guesses
from one address does not lock out the owner at another (ASVS 5.0, 6.1.1 and 6.6.3). The limit on consecutive
failures of all clients protects against attacks from many addresses (NIST SP 800-63B: at most 100). The owner
bypasses that limit with a recovery code or on a remembered device.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final, NamedTuple

from mks_hardening._core.checks import number, text_of, whole_number
from mks_hardening._core.durations import seconds

__all__ = ["FailureBudget"]

# More than the maximum of ``lifetime``: failures of others cannot evict the lock of a client before the limit of
# the account applies.
_MOST_CLIENTS: Final = 128


class ClientFailures(NamedTuple):
    """Failures of one client since its last success or lock."""

    client: str
    wrong: int
    locks: int
    locked_until: float
    last_at: float


class Failures(NamedTuple):
    """Failures of one account: consecutive ones in total, and by client."""

    total: int = 0
    clients: tuple[ClientFailures, ...] = ()


class FailureLock(NamedTuple):
    """A lock that refuses codes without a check; without ``retry_after`` it does not expire."""

    retry_after: float | None


NO_FAILURES: Final = Failures()


class FailureBudget:
    """Number of wrong codes before a client, and finally the account, is locked.

    Args:
        attempts: wrong codes of one client before it is locked.
        lock: duration of its first lock, in seconds.
        growth: factor by which each further lock is longer.
        max_lock: maximum duration of a lock, in seconds; after that long without failures a client starts afresh.
        lifetime: consecutive wrong codes of all clients, at most 100, until only a recovery code, a remembered
            device or ``unlock`` helps.

    Raises:
        ConfigurationError: a value is out of range.
    """

    __slots__ = ("attempts", "growth", "lifetime", "lock", "max_lock")

    def __init__(
        self,
        attempts: int = 5,
        *,
        lock: float | timedelta = 300,
        growth: float = 2,
        max_lock: float | timedelta = 3600,
        lifetime: int = 100,
    ) -> None:
        self.attempts: int = whole_number(attempts, parameter="attempts", minimum=1, maximum=20)
        self.lock: float = seconds(lock, parameter="lock", allow_zero=False)
        self.growth: float = number(growth, parameter="growth", minimum=1, maximum=10)
        self.max_lock: float = seconds(max_lock, parameter="max_lock", minimum=self.lock)
        self.lifetime: int = whole_number(lifetime, parameter="lifetime", minimum=attempts, maximum=100)

    def lock_of(
        self, failures: Failures, client: str, now: float, *, trusted: bool = False
    ) -> FailureLock | None:
        """Return the lock that applies to this client now, if any.

        The lock of the account does not apply to a trusted client.
        """
        if failures.total >= self.lifetime and not trusted:
            return FailureLock(None)
        entry = _entry(failures, client)
        return (
            FailureLock(entry.locked_until - now) if entry is not None and entry.locked_until > now else None
        )

    def charged(self, failures: Failures, client: str, now: float) -> Failures:
        """Return the failures after one more wrong code of this client."""
        entry = _entry(failures, client) or ClientFailures(client, 0, 0, 0.0, now)
        wrong, locks, until = entry.wrong + 1, entry.locks, entry.locked_until
        # The count restarts with each lock, so that the next lock takes as many guesses; its duration grows
        # instead.
        if wrong >= self.attempts:
            wrong, locks, until = 0, locks + 1, now + self._lock_length(locks)
        others = [e for e in failures.clients if e.client != client and self._counts(e, now)]
        # The latest at the end, so that the slice drops the clients without failures for the longest time.
        kept = [*others[-_MOST_CLIENTS:], ClientFailures(client, wrong, locks, until, now)]
        return Failures(failures.total + 1, tuple(kept))

    def forgiven(self, failures: Failures, client: str, now: float) -> Failures:
        """Return the failures after a correct code of this client; locks of other clients remain."""
        return Failures(0, tuple(e for e in failures.clients if e.client != client and self._counts(e, now)))

    def _lock_length(self, locks: int) -> float:
        # The exponent is limited too: a float overflows after some 300 locks, which a bot reaches.
        return min(self.max_lock, self.lock * self.growth ** min(locks, 64))

    def _counts(self, entry: ClientFailures, now: float) -> bool:
        return max(entry.last_at, entry.locked_until) + self.max_lock > now

    def __repr__(self) -> str:
        return (
            f"FailureBudget(attempts={self.attempts}, lock={self.lock:g}, growth={self.growth:g}, "
            f"max_lock={self.max_lock:g}, lifetime={self.lifetime})"
        )


def client_digest(user_id: str, client: str | None) -> str:
    """Return a short digest to store instead of the address or device; empty if there is no client."""
    if client is None or not text_of(client, parameter="client"):
        return ""
    # Includes the user id: if the table is stolen, the same address cannot be recognised in two records.
    text = f"{user_id}\0{client}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def _entry(failures: Failures, client: str) -> ClientFailures | None:
    return next((entry for entry in failures.clients if entry.client == client), None)
