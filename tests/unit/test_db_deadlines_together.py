"""Several operations that a stopped server holds up end within one deadline, not one after the other."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mks_hardening.db.engine._client_deadline import Deadline
from mks_hardening.testing import FrozenClock


class Silent:
    """An operation at a server that lets everybody wait."""

    answered = 0.0
    ended: float | None = None

    def __init__(self, clock: FrozenClock, address: str, since: float) -> None:
        self.clock = clock
        self.address = address
        self.since = since

    def answers(self, *, within: float) -> bool:
        self.clock.advance(within)
        return False

    def hang_up(self) -> None:
        self.ended = self.clock.monotonic()


@pytest.mark.parametrize("later", [0, 0.01, 0.3])
@pytest.mark.parametrize("addresses", ["a", "ab"])
def test_nobody_waits_for_longer_than_the_deadline(later: float, addresses: str) -> None:
    clock = FrozenClock()
    deadline = Deadline(2, clock=clock)
    begun = clock.monotonic()
    places = itertools.cycle(addresses)
    waits = [Silent(clock, next(places), begun + n * later) for n in range(2)]
    clock.advance(1)
    while left := [wait for wait in waits if wait.ended is None]:
        due: list[Any] = [(wait, wait.since) for wait in left if wait.since + 1 <= clock.monotonic()]
        if due:
            deadline._ask(due)
        else:
            clock.advance(0.001)
    assert all(wait.ended is not None and wait.ended - wait.since <= 2 for wait in waits)
