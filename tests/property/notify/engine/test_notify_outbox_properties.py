from __future__ import annotations

from collections import deque
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mks_hardening.notify import AlertPolicy
from mks_hardening.notify.engine._alert import Alert, OutgoingMessage
from mks_hardening.notify.engine._outbox import Outbox


class OutboxMachine(RuleBasedStateMachine):
    """Nothing is lost or doubled, the rate holds, ids stay, and no alert is tried too often."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = count()
        self.spooling = False
        self.policy = AlertPolicy(retries=2, backoff=1, backoff_max=8, rate=0.5)
        self.box = self._box()
        self.now = 0.0
        self.inside: set[str] = set()
        self.outside: set[str] = set()
        self.under_way: OutgoingMessage | None = None
        self.retried: OutgoingMessage | None = None
        self.tries: dict[str, int] = {}
        self.starts: deque[float] = deque()

    def _box(self) -> Outbox:
        return Outbox(
            self.policy, spooling=self.spooling, random=lambda: 0.5, new_id=lambda: f"s{next(self.ids)}"
        )

    @precondition(lambda self: not self.inside and not self.outside)
    @rule()
    def with_spool(self) -> None:
        self.spooling = True
        self.box = self._box()

    @rule(number=st.integers(1, 60))
    def add(self, number: int) -> None:
        alerts = [Alert(f"a{next(self.ids)}", "f", 0.0, "ERROR", "app", "x") for _ in range(number)]
        self.inside |= {alert.id for alert in alerts}
        self.box.add(alerts)

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.under_way is None)
    @rule()
    def take(self) -> None:
        wait = self.box.wait(now=self.now)
        message = self.box.next_message(now=self.now)
        assert (message is None) == (wait > 0 or not self.inside)
        if message is None:
            return
        self.starts.append(self.now)
        self.under_way = message
        self.tries[message.id] = self.tries.get(message.id, 0) + 1
        assert self.tries[message.id] <= 1 + self.policy.retries
        assert {alert.id for alert in message.alerts} <= self.inside
        assert len(message.alerts) <= 40
        if self.retried is not None:
            assert message == self.retried
        self.retried = None

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def deliver(self) -> None:
        self.box.succeeded()
        self._leave([self.under_way])
        assert not self.box.failing

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def refuse(self) -> None:
        self.box.refused()
        self._leave(self._given_up())

    @precondition(lambda self: self.under_way is not None)
    @rule(retry_after=st.none() | st.floats(0, 300))
    def fail(self, retry_after: float | None) -> None:
        message, self.under_way = self.under_way, None
        assert message is not None
        self.box.failed(now=self.now, retry_after=retry_after)
        given_up = self._given_up()
        pause = self.box.wait(now=self.now)
        assert pause >= (retry_after or 0) - 1e-6
        self._leave(given_up)
        self.retried = None if given_up else message._replace(tries=message.tries + 1)
        if given_up and self.spooling and self.box.down:
            assert self.box.idle

    @rule()
    def give_up(self) -> None:
        self.box.give_up()
        self._leave(self._given_up())
        self.retried = None
        assert self.box.idle

    def _given_up(self) -> list[OutgoingMessage]:
        messages = list(self.box.given_up)
        self.box.given_up.clear()
        return messages

    def _leave(self, messages: list[OutgoingMessage | None] | list[OutgoingMessage]) -> None:
        for message in messages:
            assert message is not None
            ids = {alert.id for alert in message.alerts}
            assert ids <= self.inside
            assert not ids & self.outside
            self.inside -= ids
            self.outside |= ids
        self.under_way = None

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.box.idle == (not self.inside)

    @invariant()
    def the_rate_holds(self) -> None:
        """Never more than the burst and what the time since then allows."""
        for older, start in enumerate(self.starts):
            allowed = 3 + (self.now - start) * self.policy.rate
            assert len(self.starts) - older <= allowed + 1e-6


TestOutbox = OutboxMachine.TestCase
