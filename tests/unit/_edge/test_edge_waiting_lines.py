"""Waiting lines: any order of requests, releases and disconnects, against a model and through the middleware."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mks_hardening import asgi
from mks_hardening._edge.concurrency.waiting_lines import WaitingLines
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.wsgi import ConcurrencyRule, limit_by_address

MOST = 2
PLACES = st.sampled_from([("client", "a"), ("client", "b"), ("all", "all")])


class LinesMachine(RuleBasedStateMachine):
    """The lines against lists: nobody is refused while the own line has room, whatever the others do."""

    waiting = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.lines: WaitingLines[object] = WaitingLines(most=MOST)
        self.model: dict[tuple[str, str], list[object]] = {}

    @rule(target=waiting, place=PLACES)
    def join(self, place: tuple[str, str]) -> tuple[tuple[str, str], object]:
        waiter, line = object(), self.model.setdefault(place, [])
        assert self.lines.join(place, waiter) is (len(line) < MOST)
        if len(line) < MOST:
            line.append(waiter)
        return place, waiter

    @rule(entry=waiting)
    def leave(self, entry: tuple[tuple[str, str], object]) -> None:
        place, waiter = entry
        if waiter in self.model[place]:
            self.model[place].remove(waiter)
            self.lines.leave(place, waiter)

    @invariant()
    def the_first_is_the_one_that_has_waited_longest(self) -> None:
        for place, line in self.model.items():
            assert self.lines.first(place) is (line[0] if line else None)
            assert self.lines.has_line(place) is bool(line)


class TrafficMachine(RuleBasedStateMachine):
    """Requests of three clients through the ASGI middleware, against a model of what each may expect."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.limiter = ConcurrencyLimiter({"client": 1, "all": 2})
        rules = [ConcurrencyRule("client", key=limit_by_address), ConcurrencyRule("all")]
        self.app = asgi.ConcurrencyMiddleware(
            self.work, limiter=self.limiter, rules=rules, wait=60, most_waiting=MOST
        )
        self.number = 0
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.clients: dict[int, str] = {}
        self.leaves: dict[int, asyncio.Event] = {}
        self.inside: list[int] = []
        self.refused: list[int] = []
        self.own: dict[str, deque[int]] = {name: deque() for name in "abc"}  # waits for a slot of its client
        self.shared: deque[int] = deque()  # has a slot of its client and waits for one of all
        self.handled: list[int] = []

    async def work(self, scope: Any, _receive: Any, _send: Any) -> None:
        number = scope["number"]
        self.inside.append(number)
        try:
            await self.gates[number].wait()
        finally:
            self.inside.remove(number)

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    # --- the model

    def _busy(self, client: str) -> bool:
        holders = (*self.handled, *self.shared)
        return any(self.clients[number] == client for number in holders)

    def _advance(self) -> None:
        """Let those in front pass until nothing moves: who waits for a slot of all goes first."""
        while True:
            if self.shared and len(self.handled) < 2:
                self.handled.append(self.shared.popleft())
                continue
            for client, line in self.own.items():
                if line and not self._busy(client):
                    self._enter_shared(line.popleft())
                    break
            else:
                return

    def _enter_shared(self, number: int) -> None:
        if not self.shared and len(self.handled) < 2:
            self.handled.append(number)
        elif len(self.shared) < MOST:
            self.shared.append(number)
        else:
            self.refused.append(number)

    # --- the rules

    @rule(client=st.sampled_from("abc"))
    def arrive(self, client: str) -> None:
        self.number += 1
        number = self.number
        self.clients[number] = client
        gone = self.leaves[number] = asyncio.Event()
        self.gates[number] = asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 503

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "number": number}
        scope["client"] = (f"192.0.2.{ord(client)}", 1)
        self.tasks[number] = self.loop.create_task(self.app(scope, receive, send))
        if not self._busy(client) and not self.own[client]:
            self._enter_shared(number)
        elif len(self.own[client]) < MOST:
            self.own[client].append(number)
        else:
            self.refused.append(number)
        self.settle()

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if not self.handled:
            return
        number = data.draw(st.sampled_from(self.handled))
        self.gates[number].set()
        self.handled.remove(number)
        self._advance()
        self.settle()

    @rule(data=st.data(), cancelled=st.booleans())
    def leave(self, data: st.DataObject, cancelled: bool) -> None:
        waiting = [*self.shared, *(number for line in self.own.values() for number in line)]
        if not waiting:
            return
        number = data.draw(st.sampled_from(waiting))
        if cancelled:
            self.tasks[number].cancel()
        else:
            self.leaves[number].set()
        for line in (self.shared, *self.own.values()):
            if number in line:
                line.remove(number)
        self._advance()
        self.settle()

    @invariant()
    def who_is_handled_and_who_is_refused_is_as_expected(self) -> None:
        assert sorted(self.inside) == sorted(self.handled)
        waiting = [*self.shared, *(number for line in self.own.values() for number in line)]
        pending = {number for number, task in self.tasks.items() if not task.done()}
        assert pending == {*waiting, *self.handled}

    @invariant()
    def no_slot_is_lost(self) -> None:
        assert self.limiter.held("all", "all") == len(self.handled)
        holders = Counter(self.clients[number] for number in (*self.handled, *self.shared))
        for client in "abc":
            assert self.limiter.held("client", f"192.0.2.{ord(client)}") == holders[client]

    def teardown(self) -> None:
        for gate in self.gates.values():
            gate.set()

        async def end() -> None:
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)

        self.loop.run_until_complete(end())
        try:
            assert self.limiter.held("all", "all") == 0
        finally:
            self.loop.close()


LinesMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TrafficMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLines = LinesMachine.TestCase
TestTraffic = TrafficMachine.TestCase
