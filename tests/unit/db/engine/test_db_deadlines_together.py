"""Several operations that a stopped server holds up end within one deadline, not one after the other."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mks_hardening.db.engine import _client_deadline
from mks_hardening.db.engine._client_deadline import ClientDeadline
from mks_hardening.testing import FrozenClock


class Silent:
    """An operation at a server that lets everybody wait."""

    responded_at = 0.0
    ended: float | None = None

    def __init__(self, clock: FrozenClock, address: str, since: float) -> None:
        self.clock = clock
        self.address = address
        self.since = since

    def is_responding(self, *, within: float) -> bool:
        self.clock.advance(within)
        return False

    def shut_down(self) -> None:
        self.ended = self.clock.monotonic()


@pytest.mark.parametrize("later", [0, 0.01, 0.3])
@pytest.mark.parametrize("addresses", ["a", "ab"])
def test_nobody_waits_for_longer_than_the_deadline(later: float, addresses: str) -> None:
    clock = FrozenClock()
    deadline = ClientDeadline(2, clock=clock)
    begun = clock.monotonic()
    places = itertools.cycle(addresses)
    waits = [Silent(clock, next(places), begun + n * later) for n in range(2)]
    clock.advance(1)
    while left := [wait for wait in waits if wait.ended is None]:
        due: list[Any] = [(wait, wait.since) for wait in left if wait.since + 1 <= clock.monotonic()]
        if due:
            deadline._probe(due)
        else:
            clock.advance(0.001)
    assert all(wait.ended is not None and wait.ended - wait.since <= 2 for wait in waits)


def _lost(clock: FrozenClock) -> ClientDeadline:
    deadline = ClientDeadline(2, clock=clock)
    wait: Any = Silent(clock, "a", clock.monotonic())
    deadline._probe([(wait, wait.since)])
    return deadline


def test_one_caller_at_a_time_tries_a_server_that_was_given_up() -> None:
    clock = FrozenClock()
    deadline = _lost(clock)
    for _ in range(3):
        assert deadline.is_lost()
        assert deadline.is_lost()
        clock.advance(2)
        assert not deadline.is_lost()  # this one tries
    assert deadline.is_lost()
    deadline.mark_reachable()
    assert not deadline.is_lost()
    assert not deadline.is_lost()


def test_a_server_that_answers_again_or_that_nobody_wants_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FrozenClock()
    deadline = _lost(clock)
    assert deadline._lost is not None
    deadline._probe_lost(deadline._lost)
    assert deadline.is_lost()
    clock.advance(3.9)
    deadline._probe_lost(deadline._lost)
    assert deadline._lost is None

    deadline = _lost(clock)
    assert deadline._lost is not None
    monkeypatch.setattr(Silent, "is_responding", lambda *_, **__: True)
    deadline._probe_lost(deadline._lost)
    assert not deadline.is_lost()


def test_many_that_end_together_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FrozenClock()
    monkeypatch.setattr(_client_deadline.time, "sleep", clock.advance)
    deadline = ClientDeadline(2, clock=clock)
    waits: list[Any] = [Silent(clock, "a", clock.monotonic()) for _ in range(1000)]
    clock.advance(1)
    deadline._probe([(wait, wait.since) for wait in waits])
    ended = [wait.ended for wait in waits]
    assert len(set(ended)) == 1000
    assert max(ended) - waits[0].since <= 2
