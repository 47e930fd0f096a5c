"""However processes come, count and go: each repetition is reported once or still waits in Redis."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.notify.engine._shared_store import SharedStore
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

PROCESSES = 4
steps = st.lists(
    st.tuples(st.integers(0, PROCESSES - 1), st.sampled_from(["log", "log", "flush", "window", "close"])),
    max_size=40,
)


class Process:
    """What a dispatcher does with a store for one kind of alert."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.open = self.closed = False
        self.repeats = 0

    def log(self) -> tuple[int, int]:
        """First alerts and repetitions reported."""
        if self.open:
            self.repeats += 1
            return 0, 0
        self.open = True
        unreported = self.store.admit("f")
        assert unreported is not None
        if unreported < 0:
            self.repeats += 1
            return 0, 0
        return 1, unreported

    def collect(self, moment: str) -> int:
        number, self.repeats = self.repeats, 0
        reported = self.store.collect("f", number, moment=moment)  # type: ignore[arg-type]  # one of the three
        assert reported is not None
        if moment == "window" and not number:
            self.open = False
        return reported


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_each_repetition_is_told_once_or_waits(
    redis_server: RedisServer, plan: list[tuple[int, str]]
) -> None:
    name = uuid4().hex
    with RedisClient(redis_server.url, store_budget=5) as client:
        make: Callable[[], Process] = lambda: Process(  # noqa: E731 - short
            SharedStore(client, destination=name, window=300, clock=SYSTEM_CLOCK, budget=5)
        )
        processes = [make() for _ in range(PROCESSES)]
        firsts = digests = reported = logged = 0
        for number, step in [*plan, *((number, "close") for number in range(PROCESSES))]:
            process = processes[number]
            if step == "log":
                first, unreported = process.log()
                logged, firsts, reported = logged + 1, firsts + first, reported + unreported
            elif process.open:
                number_told = process.collect(step)
                digests, reported = digests + bool(number_told), reported + number_told
                if step == "close":
                    processes[number] = make()  # another process takes its place
        waiting = int(client.call("HGET", f"{processes[0].store._prefix}:f", "unreported") or 0)
    assert firsts == min(logged, 1)
    assert digests <= 1
    assert reported + waiting == logged - firsts
