"""Concurrency limits without a server: slots in memory, and what happens while a storage is away."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening._core import hooks, operations
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConcurrencyExceededError,
    ConfigurationError,
)
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.security._membership import Announcement
from mks_hardening.testing import FrozenClock


@pytest.fixture
def limiter() -> ConcurrencyLimiter:
    return ConcurrencyLimiter({"export": 2, "mail": 1})


def test_so_many_at_once_and_no_more(limiter: ConcurrencyLimiter) -> None:
    first, second, third = (limiter.acquire("export", "u") for _ in range(3))
    assert (bool(first), bool(second), bool(third)) == (True, True, False)
    assert (first.held, second.held, third.held) == (1, 2, 2)
    assert limiter.acquire("export", "other")
    first.release()
    first.release()
    assert not first
    again = limiter.acquire("export", "u")
    assert again
    assert limiter.held("export", "u") == 2


def test_limits_and_keys_are_counted_apart(limiter: ConcurrencyLimiter) -> None:
    slots = [limiter.acquire("mail", key) for key in ("", "a:b", "}", "{}", "\udc80", "x" * 5000, "x" * 5001)]
    assert all(slots)
    assert not limiter.acquire("mail", "}")
    assert limiter.acquire("export", "}")


def test_a_block_holds_a_slot_and_lets_go_of_it(limiter: ConcurrencyLimiter) -> None:
    block = limiter.hold("mail")
    with block as slot:
        assert slot
        assert repr(slot) == "Slot('mail', held)"
        with pytest.raises(ConcurrencyExceededError) as raised, limiter.hold("mail"):
            raise AssertionError("two at once")
        assert (raised.value.limit, raised.value.quota) == ("mail", 1)
    assert repr(slot) == "Slot('mail', not held)"
    with pytest.raises(ZeroDivisionError), block:
        raise ZeroDivisionError
    assert limiter.held("mail") == 0


def test_a_slot_is_a_block_as_well(limiter: ConcurrencyLimiter) -> None:
    with limiter.acquire("mail"):
        with limiter.acquire("mail") as refused:
            assert not refused
        assert limiter.held("mail") == 1
    assert limiter.held("mail") == 0


def test_what_nobody_has_any_more_is_free(limiter: ConcurrencyLimiter) -> None:
    def work() -> None:
        slot = limiter.acquire("mail")
        assert slot

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert limiter.acquire("mail")


def test_a_forked_child_holds_nothing(limiter: ConcurrencyLimiter) -> None:
    slot = limiter.acquire("mail")
    limiter._local.reset_after_fork()
    assert limiter.acquire("mail")
    slot.release()


def test_coroutines(limiter: ConcurrencyLimiter) -> None:
    most = now = 0

    async def work() -> None:
        nonlocal most, now
        async with limiter.hold("export", wait=10) as slot:
            assert await slot.arenew()
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    async def play() -> None:
        await asyncio.gather(*(work() for _ in range(8)))
        slot = await limiter.aacquire("mail")
        with pytest.raises(ConcurrencyExceededError):
            async with limiter.hold("mail"):
                pass
        assert await limiter.aheld("mail") == 1
        await slot.arelease()
        async with await limiter.aacquire("mail"):
            assert not await limiter.aacquire("mail")
        await limiter.aclose()

    asyncio.run(play())
    assert most == 2


def test_decorated_functions(limiter: ConcurrencyLimiter) -> None:
    @limiter.limit("mail", key=lambda name: name)
    def greet(name: str) -> str:
        assert limiter.held("mail", name) == 1
        return f"hello {name}"

    @limiter.limit("mail")
    async def wait() -> str:
        return "done"

    assert greet("a") == "hello a"
    with limiter.hold("mail", "a"), pytest.raises(ConcurrencyExceededError):
        greet("a")
    assert inspect.iscoroutinefunction(wait)
    assert asyncio.run(wait()) == "done"
    with pytest.raises(ConfigurationError):
        limiter.limit("nope")


def items() -> Iterator[int]:
    yield 1


async def aitems() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [items, aitems])
def test_a_generator_would_hold_nothing_and_is_refused(function: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match="use hold inside"):
        ConcurrencyLimiter({"mail": 1}).limit("mail")(function)


def test_threads_never_hold_more_than_there_are() -> None:
    limiter = ConcurrencyLimiter({"g": 3})
    lock, now, most = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal now, most
        with limiter.hold("g", wait=30):
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(100)))
    assert 1 <= most <= 3


def test_places_are_forgotten() -> None:
    limiter = ConcurrencyLimiter({"g": 1})
    for number in range(3_000):
        limiter.acquire("g", str(number))  # and nobody keeps it
    assert len(limiter._local._slots) < 1_500
    for number in range(3_000):
        with limiter.hold("g", str(number)):
            pass
    assert len(limiter._local._slots) < 1_500


@pytest.mark.parametrize(
    "options",
    [
        {"limits": {}},
        {"limits": {"": 1}},
        {"limits": {"g": 0}},
        {"limits": {"g": True}},
        {"limits": {"g": 1.5}},
        {"lease": 0},
        {"lease": "10"},
        {"on_unavailable": "never"},
        {"on_unavailable": {"other": "open"}},
        {"storage": "http://127.0.0.1"},
    ],
)
def test_impossible_limiters_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        ConcurrencyLimiter(**{"limits": {"g": 1}, **options})


@pytest.mark.parametrize(
    ("limits", "said", "parameter"),
    [
        ({}, "limits must contain at least one named limit", "limits"),
        ({"": 1}, "limits must contain at least one named limit", "limits"),
        ({"g": 0}, "limits['g'] must be", "limits['g']"),
        ({"g": 1_000_001}, "limits['g'] must be", "limits['g']"),
    ],
)
def test_a_refusal_says_which_limit_it_means(limits: Any, said: str, parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ConcurrencyLimiter(limits)
    assert str(refused.value).startswith(said)
    assert refused.value.parameter == parameter


def test_the_largest_limit_is_a_million() -> None:
    assert repr(ConcurrencyLimiter({"g": 1_000_000})) == "ConcurrencyLimiter({'g': 1000000})"


@pytest.mark.parametrize(
    ("drawn", "pauses"),
    [
        (0.0, [0.005, 0.01, 0.02, 0.04, 0.08, 0.125, 0.125]),
        (1.0, [0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25]),
    ],
)
def test_who_waits_asks_ever_less_often(
    monkeypatch: pytest.MonkeyPatch, drawn: float, pauses: list[float]
) -> None:
    clock = FrozenClock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(operations.time, "sleep", sleep)
    monkeypatch.setattr("mks_hardening.security.concurrency.concurrency_limiter.random", lambda: drawn)
    limiter = ConcurrencyLimiter({"g": 1}, clock=clock)
    with limiter.hold("g"):
        assert not limiter.acquire("g", wait=sum(pauses) + 0.001)
    assert slept == pytest.approx([*pauses, 0.001])


def test_a_decorated_function_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = ConcurrencyLimiter({"g": 1})
    taken = limiter.acquire("g", "k")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        taken.release()

    monkeypatch.setattr(operations.time, "sleep", sleep)
    with pytest.raises(ConcurrencyExceededError):
        limiter.limit("g", key=str)(lambda _: 1)("k")
    assert slept == []
    assert limiter.limit("g", key=str, wait=9)(lambda _: 1)("k") == 1
    assert len(slept) == 1
    with pytest.raises(ConfigurationError) as refused:
        limiter.limit("g", key="k")  # type: ignore[arg-type]
    assert refused.value.parameter == "key"


@pytest.mark.parametrize("call", [("nope", "k", 0), ("mail", b"k", 0), ("mail", None, 0), ("mail", "k", -1)])
def test_impossible_calls_are_refused_and_hold_nothing(limiter: ConcurrencyLimiter, call: Any) -> None:
    limit, key, wait = call
    for ask in (limiter.acquire, limiter.hold):
        with pytest.raises(ConfigurationError):
            ask(limit, key, wait=wait)
    assert limiter._local.by_place() == {}


# --- a storage that is away ----------------------------------------------------------------------


class Storage:
    """Slots that are shared, as long as it answers."""

    def __init__(self) -> None:
        self.away = False
        self.workers, self.number, self.life = 4, 0, 1
        self.tokens: dict[str, set[str]] = {}

    def in_doubt(self) -> bool:
        return False

    def acquire(self, place: str, token: str, *, quota: int) -> Any:
        self._answer()
        yield from ()
        tokens = self.tokens.setdefault(place, set())
        got = len(tokens) < quota
        if got:
            tokens.add(token)
        return got, len(tokens), 5.0

    def renew(self, place: str, tokens: Any) -> Any:
        self._answer()
        yield from ()
        had = [token in self.tokens.get(place, ()) for token in tokens]
        self.tokens.setdefault(place, set()).update(tokens)
        return had

    def release(self, place: str, token: str) -> Any:
        self._answer()
        yield from ()
        self.tokens.get(place, set()).discard(token)

    def announce(self, *_: Any) -> Any:
        self._answer()
        yield from ()
        return Announcement(self.workers, self.number, self.life, self.workers)

    def close(self) -> None:
        self.away = True

    def _answer(self) -> None:
        if self.away:
            raise BackendUnavailableError("redis", "refused", retry_after=2.5)


class Site:
    def __init__(self, policy: Any = "local", quota: int = 8) -> None:
        self.clock = FrozenClock()
        self.storage: Any = Storage()
        self.limiter = ConcurrencyLimiter(
            {"g": quota}, storage="redis://127.0.0.1:1", on_unavailable=policy, clock=self.clock
        )
        assert self.limiter._shared is not None
        self.limiter._shared.close()
        self.limiter._shared = self.storage
        self.limiter._members._send = self.storage.announce
        self.limiter._renewal = self  # type: ignore[assignment]  # renewed by hand
        self.slots: list[Any] = []

    def start(self) -> None:
        """The thread, which is not there."""

    def acquired(self, tries: int) -> int:
        slots = [self.limiter.acquire("g") for _ in range(tries)]
        self.slots += [slot for slot in slots if slot]
        return sum(map(bool, slots))


def test_each_process_has_its_share_and_what_it_holds_is_in_it() -> None:
    site = Site()
    assert site.acquired(1) == 1
    site.storage.away = True
    assert site.acquired(10) == 1  # two of eight, one of which was held
    assert site.limiter.held("g") == 2
    for slot in site.slots:
        slot.release()
    assert site.acquired(10) == 2


def test_a_share_is_at_least_one() -> None:
    site = Site(quota=1)
    site.storage.number = 3
    site.limiter.acquire("g").release()
    site.storage.away = True
    assert site.acquired(5) == 1


@pytest.mark.parametrize(("policy", "passed"), [("open", 20), ("closed", 0)])
def test_the_other_policies(policy: str, passed: int) -> None:
    site = Site(policy)
    seen: list[Any] = []
    site.storage.away = True
    hooks.add_observer(seen.append)
    try:
        assert site.acquired(20) == passed
    finally:
        hooks.remove_observer(seen.append)
    assert seen[0] == events.RateLimitDecided("g", allowed=bool(passed), source=policy)
    refused = Site("closed")
    refused.storage.away = True
    assert refused.limiter.acquire("g").retry_after == 2.5


def test_what_is_given_to_everybody_is_counted_here_and_by_the_storage_when_it_is_back() -> None:
    site = Site("open", quota=2)
    site.storage.away = True
    assert site.acquired(3) == 3
    assert [slot.held for slot in site.slots] == [1, 2, 3]
    assert site.limiter.held("g") == 3
    site.storage.away = False
    assert site.limiter._renew_all()
    assert [len(tokens) for tokens in site.storage.tokens.values()] == [3]


def test_with_shares_a_storage_in_doubt_is_not_asked() -> None:
    for policy, asked in (("local", 0), ("closed", 1)):
        site = Site(policy)
        site.storage.in_doubt = lambda: True
        assert site.acquired(1) == 1
        assert len(site.storage.tokens) == asked


def test_what_was_got_meanwhile_is_counted_afterwards() -> None:
    site = Site()
    site.acquired(1)
    site.storage.away = True
    site.acquired(1)
    assert site.limiter._renew_all()  # in vain
    site.storage.away = False
    assert site.limiter._renew_all()
    assert [len(tokens) for tokens in site.storage.tokens.values()] == [2]
    assert [slot.lost for slot in site.slots] == [False, False]
    for slot in site.slots:
        slot.release()
    assert not site.limiter._renew_all()
    assert [len(tokens) for tokens in site.storage.tokens.values()] == [0]


def test_a_storage_that_lost_everything_gives_no_more_than_shares_until_all_have_told_it() -> None:
    site = Site()
    assert site.acquired(1) == 1
    site.storage.away = True
    site.acquired(1)
    site.storage.away, site.storage.life = False, 2
    site.storage.tokens.clear()
    assert site.acquired(5) == 0  # two is this one's share, and others may hold six
    refused = site.limiter.acquire("g")
    assert 0 < (refused.retry_after or 0) <= 2.5
    site.slots.pop().release()
    assert site.acquired(5) == 1
    assert [len(tokens) for tokens in site.storage.tokens.values()] == [2]
    assert site.slots[0].lost
    site.clock.advance(3)
    assert site.acquired(10) == 6


def test_a_forked_child_leaves_the_slots_of_its_parent_alone() -> None:
    site = Site()
    site.acquired(2)
    mine, of_the_parent = site.slots
    mine.release()
    site.limiter._local.reset_after_fork()
    of_the_parent.release()
    assert [len(tokens) for tokens in site.storage.tokens.values()] == [1]


def test_a_lease_that_ran_out_is_told_to_its_holder() -> None:
    site = Site()
    site.acquired(1)
    (slot,) = site.slots
    assert slot.renew()
    site.storage.tokens.clear()
    assert not slot.renew()
    assert slot.lost
    site.storage.away = True
    assert not slot.renew()
    slot.release()
    assert not slot.renew()


@pytest.mark.parametrize("away", [False, True])
def test_who_goes_away_while_asking_holds_nothing(*, away: bool) -> None:
    """Or it would be held by nobody until the lease ends: a few clients that give up shut out all others."""
    site = Site(quota=1)
    acquire = site.storage.acquire

    def given_too_late(place: str, token: str, *, quota: int) -> Any:
        yield from acquire(place, token, quota=quota)
        site.storage.away = away
        raise asyncio.CancelledError

    site.storage.acquire = given_too_late
    with pytest.raises(asyncio.CancelledError):
        site.limiter.acquire("g")
    site.storage.acquire = acquire
    assert [len(tokens) for tokens in site.storage.tokens.values()] == [away]  # then the lease ends it
