"""Time on a loop that somebody else keeps busy, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mks_hardening._core.resilience import loop_time as module
from mks_hardening._core.resilience.loop_time import LoopAwareTimeout, LoopTime, loop_time
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FrozenClock:
    frozen = FrozenClock()
    monkeypatch.setattr(module, "SYSTEM_CLOCK", frozen)
    return frozen


def on_a_loop(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


async def tick() -> None:
    """Let the timers that are due run: real time passes, the clock stands still."""
    await asyncio.sleep(0.02)


def test_time_counts_as_lost_only_beyond_what_was_due_and_only_while_a_call_waits(clock: FrozenClock) -> None:
    async def main() -> None:
        counter = LoopTime()
        clock.advance(10)
        assert counter.lost() == 0.0
        counter.enter(1.0)
        clock.advance(0.005)
        assert counter.lost() == 0.0
        clock.advance(0.0015)  # the timer's own lateness
        assert counter.lost() == 0.0
        clock.advance(0.25)
        assert counter.lost() == pytest.approx(0.2515)
        await tick()
        assert counter.lost() == pytest.approx(0.2515)
        clock.advance(0.105)
        assert counter.lost() == pytest.approx(0.3515)
        counter.leave()
        await tick()
        clock.advance(10)
        assert counter.lost() == pytest.approx(0.3515)

    on_a_loop(main)


def test_two_calls_share_the_ticks(clock: FrozenClock) -> None:
    async def main() -> None:
        counter = LoopTime()
        counter.enter(1.0)
        clock.advance(0.004)
        counter.enter(1.0)
        clock.advance(0.004)
        assert counter.lost() == pytest.approx(0.003)
        counter.leave()
        await tick()
        clock.advance(0.105)
        assert counter.lost() == pytest.approx(0.103)
        counter.leave()

    on_a_loop(main)


def test_each_loop_has_one_counter() -> None:
    seen: list[LoopTime] = []

    async def main() -> None:
        assert loop_time() is loop_time()
        seen.append(loop_time())

    on_a_loop(main)
    on_a_loop(main)
    assert seen[0] is not seen[1]


async def deadline_of(counter: LoopTime, allowed: float, passes: Callable[[], Awaitable[None]]) -> str:
    """Whether a call that gets no answer ends while time passes as said."""

    async def call() -> None:
        async with LoopAwareTimeout(counter, allowed):
            await asyncio.Event().wait()

    counter.enter(1.0)
    task = asyncio.ensure_future(call())
    await asyncio.sleep(0)
    await passes()
    await tick()
    counter.leave()
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
        return "waits"
    assert isinstance(task.exception(), TimeoutError)
    return "timeout"


@pytest.mark.parametrize(
    ("steps", "step", "outcome"),
    [
        (1, 0.25, "waits"),  # one stall, far longer than the deadline
        (3, 0.25, "waits"),
        (4, 0.03, "timeout"),  # five thousandths of each slice are not lost, and 0.01 s are allowed
        (1, 0.004, "waits"),
        (4, 0.004, "timeout"),
    ],
)
def test_a_deadline_is_put_off_by_what_the_loop_did_elsewhere(
    clock: FrozenClock, steps: int, step: float, outcome: str
) -> None:
    async def main() -> None:
        async def passes() -> None:
            for _ in range(steps):
                clock.advance(step)
                await tick()

        allowed = 0.01 if step != 0.25 else 0.05
        assert await deadline_of(LoopTime(), allowed, passes) == outcome

    on_a_loop(main)


def test_a_call_that_is_cancelled_or_answered_leaves_no_timer(clock: FrozenClock) -> None:
    async def main() -> None:
        counter = LoopTime()
        async with LoopAwareTimeout(counter, 0.001):
            pass
        clock.advance(1)
        await tick()  # nothing comes of it
        with pytest.raises(ValueError, match="planted"):
            async with LoopAwareTimeout(counter, 0.001):
                raise ValueError("planted")
        clock.advance(1)
        await tick()

    on_a_loop(main)


def test_no_time_at_all_is_a_time_out(clock: FrozenClock) -> None:
    async def main() -> None:
        assert await deadline_of(LoopTime(), -1.0, lambda: asyncio.sleep(0)) == "timeout"

    on_a_loop(main)
