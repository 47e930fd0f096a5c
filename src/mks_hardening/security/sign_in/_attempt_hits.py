"""Counting of failed attempts: hits are reserved first, and given back unless the attempt was a wrong guess.

So parallel guesses cannot exceed a limit, and an outage is not counted as a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key, parse_address
from mks_hardening._core.store_calls import call_store

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.sign_in.sign_in_protocols import FailureLimiter, HitReservation

__all__ = [
    "AttemptHits",
    "LimitKey",
    "account_limit_key",
    "client_limit_keys",
    "device_limit_key",
    "network_of",
]

LimitKey: TypeAlias = tuple[str, str]
"""A group of limits and the key that is counted in it."""
_OF_CLIENT: Final = frozenset(("auth_login_address", "auth_login_network", "auth_password_reset_address"))
"""Groups that count a client across all names: their state reveals nothing about an account."""


class AttemptHits:
    """Hits of one attempt; without a limiter there are none.

    Attributes:
        refusal: the decision that refused the attempt.
        refused_group: the group of that decision.
        disclosed: the same decision, if the client may see it.
    """

    __slots__ = ("_limiter", "_reserved", "disclosed", "refusal", "refused_group")

    def __init__(self, limiter: FailureLimiter | None) -> None:
        self._limiter = limiter
        self._reserved: list[HitReservation] = []
        self.refusal: LimitDecision | None = None
        self.refused_group = ""
        self.disclosed: LimitDecision | None = None

    @property
    def retry_after(self) -> float | None:
        """Seconds until a refused attempt would be allowed."""
        return None if self.refusal is None else self.refusal.retry_after

    def reserve(self, *keys: LimitKey) -> Op[bool]:
        """Reserve a hit for each key and return true; if one is refused, give the others back."""
        try:
            for key in keys:
                decision = yield from self.reserve_one(key)
                if decision is not None and not decision.allowed:
                    self.refusal, self.refused_group = decision, key[0]
                    self.disclosed = decision if key[0] in _OF_CLIENT else None
                    yield from self.give_back()
                    return False
        except BaseException:  # outage of the limiter, or cancelled: no attempt was made
            yield from self.give_back()
            raise
        return True

    def reserve_one(self, key: LimitKey) -> Op[LimitDecision | None]:
        """Reserve a hit for one key; a refusal reserves nothing and leaves the other hits in place."""
        if self._limiter is None:
            return None
        reservation = yield from call_store(self._limiter.reserve, *key)
        # A refused reservation has no hits to give back.
        if reservation.decision.allowed:
            self._reserved.append(reservation)
        return reservation.decision

    def keep(self) -> None:
        """Keep the hits counted: ``give_back`` no longer affects them."""
        self._reserved.clear()

    def give_back(self) -> Op[None]:
        """Give back the reserved hits."""
        # Popped one by one: if the limiter fails part-way, a second call does not give the same hit back twice.
        while self._reserved:
            yield from call_store(self._reserved.pop().cancel)


def client_limit_keys(address: str, name: str) -> tuple[LimitKey, ...]:
    """Return the limit keys for a guess from an unknown device: network, address, and address with this name."""
    client = client_key(address)
    return (
        ("auth_login_network", network_of(address)),
        ("auth_login_address", client),
        ("auth_login", f"{client} {name}"),
    )


def account_limit_key(user_id: str | None, name: str) -> LimitKey:
    """Return the limit key that counts guesses from all clients; unknown names are counted in the same way."""
    return "auth_login_account", f"name {name}" if user_id is None else f"user {user_id}"


def device_limit_key(device: str) -> LimitKey:
    """Return the limit key for a guess from a remembered device."""
    return "auth_login_device", f"device {device}"


def network_of(address: str) -> str:
    """Return the /24 of an IPv4 address or the /48 of an IPv6 address."""
    found = parse_address(address)
    if found is not None and found.version == 4:
        return f"{str(found).rpartition('.')[0]}.0/24"
    return client_key(address, ipv6_prefix=48)
