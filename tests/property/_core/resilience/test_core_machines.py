"""State machines: the worker against a model, and the Redis client against a dictionary through faults."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening.exceptions import BackendUnavailableError
from testbed.fault_proxy import FaultProxy
from testbed.redis_server import RedisServer


class WorkerMachine(RuleBasedStateMachine):
    """What goes in comes out once, in order, or is counted, or is handed back."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.handled: list[int] = []
        self.accepted: list[int] = []
        self.refused = 0
        self.left: list[int] = []
        self.closed = False
        self.worker = BackgroundWorker(self._handle, name="machine", max_queue=4, leftover=self.left.extend)

    def _handle(self, item: int) -> None:
        self.gate.wait(10)
        self.handled.append(item)
        if item % 7 == 0:
            raise ValueError(item)

    @rule(item=st.integers(0, 1000))
    def put(self, item: int) -> None:
        if self.worker.put(item):
            assert not self.closed
            self.accepted.append(item)
        else:
            self.refused += 1

    @rule()
    def hold(self) -> None:
        self.gate.clear()

    @rule()
    def let_go(self) -> None:
        self.gate.set()

    @rule()
    def flush(self) -> None:
        self.gate.set()
        assert self.worker.flush(10)
        if not self.closed:
            assert self.handled == self.accepted
            assert self.worker.pending == 0

    @rule()
    def close(self) -> None:
        self.gate.set()
        self.worker.close(10)
        self.closed = True
        assert self.handled + self.left == self.accepted

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.worker.dropped == self.refused
        handled = self.handled.copy()  # it grows meanwhile
        assert handled == self.accepted[: len(handled)]

    def teardown(self) -> None:
        self.gate.set()
        self.worker.close(10)
        assert self.handled + self.left == self.accepted
        assert self.worker.failed == sum(item % 7 == 0 for item in self.handled)


def test_worker_machine() -> None:
    run_state_machine_as_test(WorkerMachine, settings=settings(max_examples=60, stateful_step_count=25))


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.binary(min_size=1, max_size=5)


class RedisMachine(RuleBasedStateMachine):
    """The client on a real server behind a wire that loses replies and resets connections, against a dictionary.

    A write that failed without saying so may or may not have happened: the model then holds both values until a
    read settles it. Reads, idempotent writes and runs with a token must survive one lost reply unnoticed.
    """

    server: ClassVar[RedisServer]
    proxy: ClassVar[FaultProxy]

    @initialize()
    def connect(self) -> None:
        self.proxy.heal()
        self.server.command("FLUSHALL")
        self.client = RedisClient(self.proxy.through(self.server.url), store_budget=5)
        self.take = self.client.script("return redis.call('GETDEL', KEYS[1])")
        self.add = self.client.script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        self.model: dict[str, set[bytes | None]] = {}
        self.total = 0
        self.tokens = 0

    def possible(self, key: str) -> set[bytes | None]:
        return self.model.get(key, {None})

    @rule(key=KEYS, value=VALUES)
    def set(self, key: str, value: bytes) -> None:
        self.client.call("SET", key, value, idempotent=True)
        self.model[key] = {value}

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        value = self.client.call("GET", key, idempotent=True)
        assert value in self.possible(key)
        self.model[key] = {value}

    @rule(key=KEYS)
    def careless_delete(self, key: str) -> None:
        try:
            self.client.call("GETDEL", key)
        except BackendUnavailableError:
            self.model[key] = self.possible(key) | {None}
            self.client.ping()  # three failures in a row would open the breaker, as they should
        else:
            self.model[key] = {None}

    @rule(key=KEYS)
    def take_once(self, key: str) -> None:
        self.tokens += 1
        assert self.take.run([key], [], token=str(self.tokens)) in self.possible(key)
        self.model[key] = {None}

    @rule(amount=st.integers(1, 9))
    def add_once(self, amount: int) -> None:
        self.tokens += 1
        self.total += amount
        assert self.add.run(["total"], [amount], token=str(self.tokens)) == self.total

    @rule()
    def lose_a_reply(self) -> None:
        self.proxy.lose_reply()

    @rule()
    def reset_connections(self) -> None:
        self.proxy.reset_connections()

    @rule()
    def forget_scripts(self) -> None:
        self.server.command("SCRIPT", "FLUSH")

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.proxy.heal()
            self.client.close()


@pytest.fixture
def machine(redis_server: RedisServer, fault_proxy: FaultProxy) -> type[Any]:
    RedisMachine.server = redis_server
    RedisMachine.proxy = fault_proxy
    return RedisMachine


@pytest.mark.redis
@pytest.mark.timeout(240)
def test_redis_machine(machine: type[Any]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
