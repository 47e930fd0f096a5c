"""Leases: at most one caller computes the value of a key, and only a valid lease may store it.

A lease has a time until which its holder counts as alive. The holder's process extends that time well before it
comes (``backends/_lease_renewal.py``); if the process dies, another one takes over the lease within a second. A
holder that was only delayed (suspended, or starved by a computation that did not release the interpreter) may still
store its value if no other process has taken over: Redis keeps the lease beyond that time.

A lease between ``begin`` and ``finish``, such as that of a response that is being read, ends after
``MAX_DEFERRED_LEASE`` in every store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mks_hardening.cache._entry import CacheEntry

__all__ = [
    "LEASE_ALIVE_MS",
    "LEASE_KEPT_MS",
    "LEASE_RENEWAL_INTERVAL",
    "MAX_COMPUTATION",
    "MAX_DEFERRED_LEASE",
    "ComputeLease",
]

LEASE_ALIVE_MS: Final = 800
"""Milliseconds without a renewal until a holder counts as dead: the delay that its death causes for others."""

LEASE_KEPT_MS: Final = 600_000
"""Milliseconds that Redis keeps a lease after its last renewal, so that its holder can still store the value."""

LEASE_RENEWAL_INTERVAL: Final = 0.2
"""Seconds between two renewals: three may fail before the holder counts as dead."""

MAX_COMPUTATION: Final = 24 * 3600.0
"""Maximum seconds that the lease of a running function is renewed."""

MAX_DEFERRED_LEASE: Final = 30.0
"""Maximum seconds between ``begin`` and ``finish``: a body that is read slowly must not hold the lease for ever."""


class ComputeLease:
    """The right to store a computed value; void as soon as the key is written or invalidated.

    Keep a reference to the lease while computing: it is renewed through a weak reference, so that an abandoned
    lease (a cancelled coroutine, a response body that is never read) ends by itself.

    Attributes:
        token: identifies the lease in the store.
        tags: versions of the tags when the lease was acquired.
        former: the fresh entry at the time the lease was acquired, if any. It never contains a value that was
            invalidated before, and a later invalidation voids the lease.
    """

    __slots__ = ("__weakref__", "former", "tags", "token")

    def __init__(self, token: object, tags: Mapping[str, bytes], former: CacheEntry | None = None) -> None:
        self.token: object = token
        self.tags: Mapping[str, bytes] = tags
        self.former: CacheEntry | None = former
