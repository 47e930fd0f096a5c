"""Failures are counted before they happen: hits are taken, and given back unless the attempt was a wrong guess.

So parallel guesses cannot exceed a limit, and a database that is away is nobody's guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from mks_hardening._core.operations import Op
from mks_hardening._core.origin.network_addresses import client_key, parse_address
from mks_hardening._core.store_calls import ask

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.sign_in.sign_in_protocols import FailureLimiter, HitReservation

__all__ = ["AttemptHits", "Row", "account_row", "client_rows", "network_of"]

Row: TypeAlias = tuple[str, str]
"""A group of limits and the key that is counted in it."""
_OF_CLIENT: Final = frozenset(("auth_login_address", "auth_login_network", "auth_password_reset_address"))
"""Groups that count a client whatever name it tries: their state says nothing of an account."""


class AttemptHits:
    """The hits of one attempt; without a limiter there are none.

    Attributes:
        disclosed: the decision that refused, where the client may see it.
    """

    __slots__ = ("_limiter", "_taken", "disclosed")

    def __init__(self, limiter: FailureLimiter | None) -> None:
        self._limiter = limiter
        self._taken: list[HitReservation] = []
        self.disclosed: LimitDecision | None = None

    def take(self, *rows: Row) -> Op[LimitDecision | None]:
        """Take a hit in each row; the decision that refused one, after all others were given back."""
        try:
            for row in rows:
                decision = yield from self.take_one(row)
                if decision is not None and not decision.allowed:
                    if row[0] in _OF_CLIENT:
                        self.disclosed = decision
                    yield from self.give_back()
                    return decision
        except BaseException:  # the limiter is away, or whoever asked has gone: no attempt was made
            yield from self.give_back()
            raise
        return None

    def take_one(self, row: Row) -> Op[LimitDecision | None]:
        """Take a hit in one row; where there is no room it is not taken, and the others stay taken."""
        if self._limiter is None:
            return None
        reservation = yield from ask(self._limiter.reserve, *row)
        # A refused one took nothing, so there is nothing to give back.
        if reservation.decision.allowed:
            self._taken.append(reservation)
        return reservation.decision

    def keep(self) -> None:
        """Nothing of what was taken is given back any more."""
        self._taken.clear()

    def give_back(self) -> Op[None]:
        """Give back what was taken."""
        # Popped one by one: if the limiter fails in the middle, a second call does not give the same hit back
        # twice.
        while self._taken:
            yield from ask(self._taken.pop().cancel)


def client_rows(address: str, name: str) -> tuple[Row, ...]:
    """Where a guess of a stranger counts: network, address, and this client at this name."""
    client = client_key(address)
    return (
        ("auth_login_network", network_of(address)),
        ("auth_login_address", client),
        ("auth_login", f"{client} {name}"),
    )


def account_row(user_id: str | None, name: str) -> Row:
    """Where guesses from everywhere count; a name that nobody has is counted just so."""
    return "auth_login_account", f"name {name}" if user_id is None else f"user {user_id}"


def network_of(address: str) -> str:
    """The /24 of an IPv4 address, the /48 of an IPv6 address."""
    found = parse_address(address)
    if found is not None and found.version == 4:
        return f"{str(found).rpartition('.')[0]}.0/24"
    return client_key(address, ipv6_prefix=48)
