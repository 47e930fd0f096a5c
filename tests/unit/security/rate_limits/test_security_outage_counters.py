"""What one process lets pass while the shared storage is away, and what it tells the storage afterwards."""

from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.operations import run
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import Limit, RateLimiter
from mks_hardening.security._membership import Announcement, Membership
from mks_hardening.security.rate_limits._memory_counters import MemoryCounters
from mks_hardening.security.rate_limits._outage_counters import OutageCounters
from mks_hardening.security.rate_limits._redis_storage import RedisStorage
from mks_hardening.security.rate_limits._windows import WindowCount
from mks_hardening.testing import FrozenClock

LIMITS = (Limit("minute", 20, 60.0), Limit("hour", 100, 3600.0))
STRATEGIES = ["exact-window", "sliding-window", "fixed-window", "gcra"]


class Answer:
    """One round trip."""

    def __init__(self, answer: Callable[[], Any], ask: Callable[[], None]) -> None:
        self.answer, self.ask = answer, ask

    def run(self) -> Any:
        self.ask()
        return self.answer()


class Storage:
    """A shared storage that can be away or lose everything, and records what it receives."""

    def __init__(self, clock: FrozenClock) -> None:
        self.clock = clock
        self.away = False
        self.fault: BaseException | None = None
        self.workers, self.number, self.life = 4, 0, 1
        self.received: list[Any] = []
        self.names: list[str] = []
        self.lose()

    def lose(self) -> None:
        self.counters = MemoryCounters(strategy="auto", clock=self.clock)
        self.life += 1
        self.began = self.now

    @property
    def now(self) -> int:
        return int(self.clock.monotonic() * 1e6) + self.life

    is_probed = False  # no thread: tests tell by hand

    def in_doubt(self) -> bool:
        return False

    def hit(self, group: str, key: str, limits: Any, *, cost: int, known: Any = (0, 0)) -> Any:
        def count() -> WindowCount:
            if 0 < known[0] < self.began:
                return WindowCount([], [], [])
            counted = self.counters.hit(group, key, limits, cost=cost)
            return counted._replace(newest=self.now, at=self.now)

        return Answer(count, self._ask)

    def test(self, group: str, key: str, limits: Any, *, cost: int, known: Any = (0, 0)) -> Any:
        def count() -> WindowCount:
            if 0 < known[0] < self.began:
                return WindowCount([], [], [])
            tested = self.counters.test(group, key, limits, cost=cost)
            return tested._replace(newest=self.now, at=self.now)

        return Answer(count, self._ask)

    def announce(self, process: str, lifetime: int, *_: int) -> Any:
        self._ask()
        yield from ()
        assert lifetime == 30
        self.names.append(process)
        return Announcement(self.workers, self.number, self.life, self.workers)

    def restore(self, group: str, key: str, limits: Any, unknown: Any, *, known: Any) -> Any:
        def receive() -> None:
            self._ask()
            if self.fault is not None:
                raise self.fault
            lost = 0 < known[0] < self.began
            self.received.append((key, tuple((before * lost, since) for before, since in unknown)))

        return Answer(self.test(group, key, limits, cost=0).answer, receive)

    def close(self) -> None:
        """As it says."""

    def _ask(self) -> None:
        if self.away:
            raise BackendUnavailableError("redis", "refused")


class Site:
    """One limiter over such a storage."""

    def __init__(self, strategy: str = "auto") -> None:
        self.clock = FrozenClock()
        self.limiter: Any = RateLimiter({"g": LIMITS}, clock=self.clock, strategy=strategy)  # type: ignore[arg-type]
        self.storage = Storage(self.clock)
        self.limiter._storage = RedisStorage(
            self.storage,  # type: ignore[arg-type]  # a fake
            self.limiter._groups,
            strategy=strategy,  # type: ignore[arg-type]  # a parameter
            clock=self.clock,
        )

    def passed(self, tries: int, key: str = "k") -> int:
        return sum(bool(self.limiter.hit("g", key)) for _ in range(tries))


@pytest.fixture
def site() -> Site:
    return Site()


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_the_parts_of_all_processes_make_the_whole(whole: int, workers: int) -> None:
    parts = []
    for number in range(workers):
        members = Membership(Storage(FrozenClock()).announce, FrozenClock())
        members.workers, members.number = workers, number
        counters = OutageCounters(strategy="auto", clock=FrozenClock(), members=members)
        parts.append(members.share_of(whole))
        assert counters._share(Limit("x", max(1, whole), 1.0)) >= 1
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_goes_on_from_what_it_knew_with_its_share(strategy: str) -> None:
    site = Site(strategy)
    assert site.passed(12) == 12
    site.storage.away = True
    assert site.passed(20) == 2  # of the 8 that were left
    assert site.passed(20, "never seen") == 5
    assert site.limiter.test("g", "k").remaining[0] == 0
    site.clock.advance(120)
    assert 4 <= site.passed(20) <= 5


def test_what_was_used_is_free_again_when_its_time_is_over(site: Site) -> None:
    site.passed(20)
    site.clock.advance(60)
    site.storage.away = True
    decision = site.limiter.hit("g", "k")
    assert decision
    assert decision.remaining == (4, 19)  # 5 of 20 a minute; of 100 an hour 80 were left


def test_without_a_word_from_the_storage_it_counts_alone(site: Site) -> None:
    site.storage.away = True
    assert site.passed(30) == 20


def test_processes_that_have_heard_of_none_share_a_limit_as_expected() -> None:
    """Redis is away from the start, or in the first second: each knew of itself alone, and let pass the whole."""
    site = Site()
    site.limiter._storage = bridge = RedisStorage(
        site.storage,  # type: ignore[arg-type]  # a fake
        site.limiter._groups,
        4,
        strategy="auto",
        clock=site.clock,
    )
    site.storage.away = True
    assert site.passed(30) == 5
    site.storage.away, site.storage.workers, site.storage.number = False, 2, 1
    site.passed(1, "other")
    assert bridge.members.workers == 4  # two are still starting
    site.storage.workers = 5
    site.clock.advance(11)
    site.passed(1, "other")
    assert bridge.members.workers == 5


def test_a_hit_larger_than_the_share_is_refused_until_the_storage_is_back(site: Site) -> None:
    assert site.limiter.hit("g", "k", cost=6)
    site.storage.away = True
    for ask in (site.limiter.hit, site.limiter.test):
        refused = ask("g", "k", cost=6)
        assert not refused
        assert refused.breached == ("minute",)
        assert refused.retry_after == 60
    assert site.passed(9) == 3
    site.storage.away = False
    site.clock.advance(1)
    assert site.limiter.hit("g", "k", cost=6)


def test_hits_since_are_told_once(site: Site) -> None:
    site.passed(12)
    site.storage.away = True
    site.clock.advance(1)
    site.passed(20)
    site.storage.away = False
    site.clock.advance(1)
    site.passed(3)
    assert site.storage.received == [("k", ((0, 2), (0, 2)))]
    site.storage.away = True
    site.clock.advance(1)
    assert site.passed(20) == 1  # of the 5 that are left now


def test_each_limit_is_told_of_the_hits_in_its_own_window(site: Site) -> None:
    site.passed(1)
    site.storage.away = True
    site.passed(20)
    site.clock.advance(120)
    site.passed(3)
    site.storage.away = False
    site.clock.advance(2)
    site.passed(1)
    assert site.storage.received == [("k", ((0, 3), (0, 7)))]


def test_a_storage_that_lost_everything_is_told_what_was_before(site: Site) -> None:
    site.passed(12)
    site.storage.away = True
    site.passed(20)
    site.storage.lose()
    site.storage.away = False
    site.clock.advance(2)
    site.passed(2)
    assert site.storage.received == [("k", ((12, 2), (12, 2)))]


def test_what_was_before_is_told_also_where_nothing_was_let_pass(site: Site) -> None:
    site.passed(12, "other")
    site.passed(1)
    site.storage.away = True
    site.passed(1)
    site.storage.lose()
    site.storage.away = False
    site.clock.advance(2)
    site.passed(2, "other")
    assert site.storage.received == [("other", ((12, 0), (12, 0)))]


@pytest.mark.parametrize("fault", [BackendUnavailableError("redis", "timeout"), CancelledError()], ids=repr)
def test_what_could_not_be_told_is_told_later_and_still_counts_here(site: Site, fault: BaseException) -> None:
    site.passed(12)
    site.storage.away = True
    assert site.passed(20) == 2
    site.storage.away, site.storage.fault = False, fault
    with suppress(CancelledError):  # whoever asked has gone in the middle of it
        assert site.passed(20) == 0
    assert site.storage.received == []
    site.storage.fault = None
    site.clock.advance(2)
    site.passed(1)
    assert site.storage.received == [("k", ((0, 2), (0, 2)))]


def test_hits_are_told_however_many_there_were(site: Site) -> None:
    site.limiter._groups["g"] = site.limiter._groups["g"]._replace(limits=(Limit("minute", 10_000, 60.0),))
    site.storage.workers = 1
    site.storage.away = True
    assert site.passed(3000) == 3000
    site.clock.advance(40)
    assert site.passed(2000) == 2000
    site.clock.advance(30)  # of which the first are over, and none of the others
    site.storage.away = False
    assert not site.limiter._storage._flush._try_once()
    ((_, ((_, count),)),) = site.storage.received
    assert 2000 <= count <= 2010
    assert len(site.limiter._storage.counters.unsent) == 0


def test_all_keys_are_told_as_soon_as_the_storage_is_back(site: Site) -> None:
    """Their clients may come to other processes from then on, and this one never hit them again."""
    for key in ("a", "b", "c"):
        site.passed(4, key)
    bridge = site.limiter._storage
    site.storage.away = True
    assert (site.passed(2, "a"), site.passed(3, "b")) == (2, 3)
    assert bridge._flush._try_once()  # it is still away
    site.storage.away = False
    assert not bridge._flush._try_once()
    assert dict(site.storage.received) == {"a": ((0, 2), (0, 2)), "b": ((0, 3), (0, 3))}
    assert not bridge._flush._try_once()
    assert len(site.storage.received) == 2
    site.storage.lose()
    site.clock.advance(11)
    assert not bridge._flush._try_once()
    assert sorted(key for key, _ in site.storage.received[2:]) == ["a", "b", "c"]


def test_the_next_outage_goes_on_from_what_was_told(site: Site) -> None:
    site.passed(12)
    for _ in range(2):
        site.storage.away = True
        assert site.passed(20) == 2  # a fresh share would be 5
        site.storage.away = False
        assert not site.limiter._storage._flush._try_once()


def test_hits_that_were_sent_meanwhile_do_not_make_a_window_longer() -> None:
    clock = FrozenClock()
    members = Membership(Storage(clock).announce, clock)
    counters = OutageCounters(strategy="auto", clock=clock, members=members)
    count = WindowCount([8, 88], [60_000_000, 3_600_000_000], [0, 0], newest=1, at=1)
    counters.record_count(("g", "k"), count, int(clock.monotonic() * 1e6))
    for past, known in ((40, ((12, 0), (12, 0))), (40, ((0, 0), (12, 0)))):
        clock.advance(past)
        unsent = counters.acquire_unsent("g", "k", LIMITS)
        assert unsent.unknown == known
        counters.record_sent(unsent, count._replace(newest=2, at=2), apart=True)


def test_who_comes_while_the_first_question_is_open_asks_too(site: Site) -> None:
    """Or what was before would not be told, as nobody knows yet that the storage has lost it."""
    site.passed(12)
    site.storage.away = True
    assert site.passed(2) == 2
    site.storage.away = False
    site.storage.lose()
    asked = site.storage.announce

    def slow(*arguments: Any) -> Any:
        yield
        return (yield from asked(*arguments))

    members = site.limiter._storage.members
    members._send = slow
    question = members.announce()
    next(question)
    members._send = asked
    site.passed(1)
    assert site.storage.received == [("k", ((12, 2), (12, 2)))]


def test_the_other_processes_are_expected_back_after_a_loss() -> None:
    """Or the first one would let pass the whole limit, if the server went away again before the others are back."""
    clock = FrozenClock()
    storage = Storage(clock)
    members = Membership(storage.announce, clock)
    run(members.announce())
    storage.life, storage.workers = storage.life + 1, 1
    assert run(members.announce())
    assert members.workers == 4
    clock.advance(31)
    assert not run(members.announce())
    assert members.workers == 1


def test_a_closed_limiter_tells_nothing(site: Site) -> None:
    site.passed(1)
    site.storage.away = True
    site.passed(1)
    site.storage.away = False
    site.limiter.close()
    assert not site.limiter._storage._flush._try_once()
    assert site.storage.received == []


def test_what_was_given_back_or_reset_is_not_told(site: Site) -> None:
    site.passed(1)
    site.storage.away = True
    reservation = site.limiter.reserve("g", "k", cost=2)
    assert reservation
    reservation.cancel()
    assert site.limiter.hit("g", "k")
    with pytest.raises(AttributeError):  # this storage cannot reset
        site.limiter.reset("g", "gone")
    site.storage.away = False
    site.clock.advance(2)
    site.passed(1)
    assert site.storage.received == [("k", ((0, 1), (0, 1)))]


def test_groups_with_another_policy_ask_the_storage_only(site: Site) -> None:
    site.limiter = RateLimiter({"g": LIMITS}, clock=site.clock, on_unavailable="closed")
    site.limiter._storage = RedisStorage(site.storage, {}, strategy="auto", clock=site.clock)  # type: ignore[arg-type]  # a fake
    site.passed(3)
    assert site.storage.names == []


def test_signs_of_life_are_frequent_at_first(site: Site) -> None:
    for _ in range(60):
        site.passed(1, "a key that has room")
        site.clock.advance(0.5)
    assert len(site.storage.names) == 7  # after 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 25.5 s
    assert len(set(site.storage.names)) == 1


def test_a_forked_child_is_a_process_of_its_own_and_owes_nothing(site: Site) -> None:
    site.passed(1)
    site.storage.away = True
    site.passed(1)
    site.limiter._storage.counters.reset_after_fork()
    site.limiter._storage.members.reset_after_fork()
    site.storage.away = False
    site.passed(1)
    assert site.storage.received == []
    assert len(set(site.storage.names)) == 2


def test_what_is_kept_is_bounded(site: Site) -> None:
    for number in range(10_100):
        site.passed(1, f"k{number}")
    site.storage.away = True
    for number in range(10_100):
        site.passed(1, f"k{number}")
    counters = site.limiter._storage.counters
    assert len(counters.known) == 10_000
    assert len(counters.unsent) == 10_000


def test_one_of_many_threads_says_so(site: Site) -> None:
    members = site.limiter._storage.members
    asking = members.announce()
    with pytest.raises(StopIteration):  # this storage answers at once
        next(asking)
    assert not members.is_due()
