"""The limiter over a Redis without a server: the scripts' arithmetic, what stands there, and what may be lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losing_redis import LosingRedis
from mks_hardening._core import hooks, operations
from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.operations import run
from mks_hardening.events import RateLimitNear
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, PaceTimeoutError
from mks_hardening.security import Limit, RateLimiter
from mks_hardening.security.rate_limits._groups import parse_groups
from mks_hardening.security.rate_limits._redis_counters import RedisCounters
from mks_hardening.security.rate_limits._redis_storage import RedisStorage
from mks_hardening.security.rate_limits._schedule import WantedTurn
from mks_hardening.security.rate_limits._windows import NO_HITS, counter_for
from mks_hardening.testing import FrozenClock, LimiterContract

STRATEGIES = ["exact-window", "sliding-window", "fixed-window", "gcra"]
SETTABLE_TIME = "{redis.call('GET', 'test:s'), redis.call('GET', 'test:us')}"
START = 1_700_000_000_000_000


class Contract(LimiterContract):
    strategy: Any = "auto"
    policy: Any = "closed"

    def make_limiter(self, groups: Any) -> Any:
        return RateLimiter(
            groups,
            storage=LosingRedis(),
            store_budget=30,
            strategy=self.strategy,
            on_unavailable=self.policy,
        )


class TestByDefault(Contract):
    policy = "local"


class TestBySlidingWindow(Contract):
    strategy = "sliding-window"


class TestByFixedWindow(Contract):
    strategy = "fixed-window"


class TestByGcra(Contract):
    strategy = "gcra"


class Timed:
    """Counters on a server whose clock is set by hand."""

    def __init__(self, strategy: Any, **options: Any) -> None:
        self.server = LosingRedis()
        self.counters = RedisCounters(
            self.server, strategy=strategy, namespace="t", store_budget=30, **options
        )
        script = self.counters._client.script

        def timed(source: str, **_: Any) -> Any:
            return script(source.replace("redis.call('TIME')", SETTABLE_TIME))

        self.counters._client.script = timed  # type: ignore[method-assign]
        self.counters._pace = timed(lua_source("mks_hardening.security.rate_limits", "lua/pace.lua"))
        self.at(START)

    def at(self, moment: int) -> None:
        self.server.mset({"test:s": moment // 1_000_000, "test:us": moment % 1_000_000})


LISTS = st.lists(
    st.tuples(st.integers(1, 150), st.sampled_from([10.0, 60.0, 3600.0])), min_size=1, max_size=3
).map(lambda rows: tuple(Limit(f"l{number}", quota, window) for number, (quota, window) in enumerate(rows)))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hit", "hit", "hit", "test", "back"]),
        st.one_of(st.just(0), st.integers(0, 2_000), st.integers(0, 90_000_000)),
        st.integers(1, 20),
    ),
    max_size=20,
)


@settings(max_examples=40)
@given(limits=LISTS, strategy=st.sampled_from(["auto", *STRATEGIES]), steps=STEPS)
def test_redis_decides_like_the_counters_in_memory(limits: Any, strategy: Any, steps: Any) -> None:
    timed, model = Timed(strategy), counter_for(limits, strategy)
    most = min(limit.quota for limit in limits)
    moment = START
    taken: list[tuple[int, int]] = []
    for operation, gap, wanted in steps:
        moment += gap
        timed.at(moment)
        cost = min(wanted, most)
        if operation == "back":
            if taken:
                at, was = taken.pop()
                left = timed.counters.give_back("g", "k", limits, at=at, cost=was).run()
                model.give_back(at, was)
                expected = model.peek(moment, 0)
                assert (left.remaining, left.reset_after) == (expected.remaining, expected.reset_after)
            continue
        answer = getattr(timed.counters, operation)("g", "k", limits, cost=cost).run()
        expected = model.hit(moment, cost) if operation == "hit" else model.peek(moment, cost)
        if expected.taken_at:
            taken.append((moment, cost))
        assert answer._replace(newest=0, at=0) == expected
    timed.counters.close()


@pytest.fixture
def server() -> LosingRedis:
    return LosingRedis()


def test_what_stands_in_redis(server: LosingRedis) -> None:
    with RateLimiter(
        {"g": "5 per minute, 500 per hour"},
        storage=server,
        namespace="ns",
        store_budget=25,
        clock=FrozenClock(),
    ) as limiter:
        limiter.hit("g", "k}:")
        keys = sorted(server.keys("*"))
        assert keys == [
            b"ns:limit:{g:k%7D:}:counts",
            b"ns:limit:{g:k%7D:}:hits",
            b"ns:limit:{presence}:generation",
            b"ns:limit:{presence}:workers",
        ]
        assert 55_000 < server.pttl(keys[1]) <= 60_000
        assert 7_195_000 < server.pttl(keys[0]) <= 7_200_000
        assert sorted(server.hkeys(keys[0])) == [b"now", b"s:3600000000:hour", b"since"]
        assert isinstance(limiter._storage, RedisStorage)
        assert limiter._storage.server._client._lease.budget == 25
        assert "limits" in repr(limiter._storage.server._client)
        limiter.reset("g", "k}:")
        assert server.keys("*}:hits") == []
        limiter.pace("g", "k").wait()
        (paced,) = server.keys("*:pace")
        assert paced == b"ns:limit:{g:k}:pace"
    with pytest.raises(ConfigurationError, match="clear text"):
        RateLimiter({"g": "1 per minute"}, storage="redis://cache.example.com")
    RateLimiter({"g": "1 per minute"}, storage="redis://cache.example.com", allow_plaintext=True).close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_an_outage_let_pass_is_counted_when_it_is_told(strategy: Any) -> None:
    timed = Timed(strategy)
    limits = (Limit("minute", 10, 60.0), Limit("hour", 100, 3600.0))
    hit = timed.counters.hit("g", "k", limits, cost=2).run()
    assert list(hit.remaining) == [8, 98]
    timed.counters.restore("g", "k", limits, [(2, 3), (7, 3)], known=(START, START)).run()
    assert list(timed.counters.test("g", "k", limits, cost=1).run().remaining) == [5, 95]
    lost = START + 1  # a hit that is not there
    timed.counters.restore("g", "k", limits, [(7, 0), (10, 0)], known=(lost, lost)).run()
    assert list(timed.counters.test("g", "k", limits, cost=1).run().remaining) == [3, 90]
    timed.counters.restore("g", "k", limits, [(0, 50), (0, 0)], known=NO_HITS).run()
    assert next(iter(timed.counters.test("g", "k", limits, cost=1).run().remaining)) == 0


def test_a_schedule_is_one_for_all() -> None:
    timed = Timed("auto")
    (rules,) = parse_groups({"mail": "10 per second"}, on_unavailable="closed", dry_run=()).values()
    wanted = WantedTurn(spacing=100_000, cost=2, burst=1, longest=350_000)
    reserve = timed.counters.reserve
    first = run(reserve(rules, "k", wanted, known=0))
    assert first == (True, START, START, START + 200_000, 200_000, "backend")
    assert run(reserve(rules, "other", wanted, known=0)).start == START
    second = run(reserve(rules, "k", wanted, known=0))
    assert (second.reserved, second.start, second.till) == (True, START + 200_000, START + 400_000)
    late = run(reserve(rules, "k", wanted, known=0))
    assert (late.reserved, late.start) == (False, START + 400_000)
    run(timed.counters.give_up(rules, "k", first))  # somebody has come after
    assert run(reserve(rules, "k", wanted, known=0)).start == START + 400_000
    run(timed.counters.give_up(rules, "k", second))
    assert run(reserve(rules, "k", wanted, known=0)).start == START + 200_000
    known = run(reserve(rules, "new", wanted, known=300_000))
    assert known.start == START + 300_000
    burst = run(reserve(rules, "b", wanted._replace(burst=3), known=250_000))
    assert burst.start == START + 50_000


def test_processes_that_are_there_are_numbered(server: LosingRedis) -> None:
    counters = RedisCounters(server, strategy="auto", namespace="t", store_budget=30)
    workers, number, life, recent = run(counters.announce("b", 30, 0, 0))
    assert (workers, number, recent) == (1, 0, 1)
    assert run(counters.announce("a", 30, 0, 0))[:3] == (2, 0, life)
    server.script_flush()
    server.lose = True
    assert run(counters.announce("b", 30, 0, 0))[:3] == (2, 1, life)
    assert not server.lose
    counters.close()


def test_a_hit_whose_answer_is_lost_is_not_sent_again(server: LosingRedis) -> None:
    limits = (Limit("minute", 10, 60.0),)
    counters = RedisCounters(server, strategy="auto", namespace="t", store_budget=30)
    counters.hit("g", "k", limits, cost=1).run()
    server.script_flush()
    server.lose = True
    with pytest.raises(BackendUnavailableError):
        counters.hit("g", "k", limits, cost=1).run()
    assert list(counters.test("g", "k", limits, cost=1).run().remaining) == [8]
    server.lose = True
    run(counters.reset("g", "k", limits))  # this one may be
    assert not server.lose
    assert list(counters.test("g", "k", limits, cost=1).run().remaining) == [10]
    counters.close()


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"": "1 per minute"}, "each group must have a name and at least one limit"),
        ({"g": []}, "each group must have a name and at least one limit"),
        (
            {"g": 7},
            "groups['g'] must be a Limit, a string like '5 per minute', or a list of them",
        ),
        ({"g": "often"}, "'often' is not a limit; write for example '5 per minute; 20 per hour'"),
        ({"g": ["1 per minute", "2 per minute"]}, "group 'g' has two limits with the same name"),
    ],
)
def test_a_refusal_says_which_group_it_means(groups: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RateLimiter(groups)
    assert str(refused.value) == said
    assert refused.value.parameter == "groups"


def test_while_the_storage_is_in_doubt_this_process_goes_on_with_its_share(
    server: LosingRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FrozenClock()
    with RateLimiter({"g": "4 per minute"}, storage=server, store_budget=30, clock=clock) as limiter:
        assert isinstance(limiter._storage, RedisStorage)
        assert limiter.hit("g", "k")
        monkeypatch.setattr(limiter._storage.server, "in_doubt", lambda: True)
        reservation = limiter.reserve("g", "k")
        assert reservation.decision.remaining == (2,)
        assert asyncio.run(limiter.ahit("g", "k")).remaining == (1,)
        assert limiter.test("g", "k").remaining == (1,)
        reservation.cancel()
        assert limiter.hit("g", "k").remaining == (1,)
        assert limiter.pace("g", "p").wait() == 0
        with pytest.raises(PaceTimeoutError) as late:
            limiter.pace("g", "p", timeout=1).wait()
        assert late.value.wait == 15.0
        assert server.keys("*{g:p}*") == []


@pytest.mark.parametrize(
    ("options", "parameter", "said"),
    [
        ({"on_unavailable": "never"}, "on_unavailable", "on_unavailable must be"),
        ({"on_unavailable": {"g": "never"}}, "on_unavailable", "on_unavailable must be"),
        ({"on_unavailable": {"h": "open"}}, "group", "group 'h' is unknown; there are g"),
        ({"dry_run": ["h"]}, "group", "group 'h' is unknown; there are g"),
        ({"strategy": "leaky"}, "strategy", "strategy must be"),
        ({"exempt": "me"}, "exempt", "exempt must be"),
        ({"groups": {"g": Limit('a"b', 1, 60.0)}}, "name", "name must be printable ASCII"),
        ({"groups": {"g": Limit("a\\b", 1, 60.0)}}, "name", "name must be printable ASCII"),
        ({"groups": {"g": Limit("é", 1, 60.0)}}, "name", "name must be printable ASCII"),
        ({"groups": {"g": Limit("a", 1, 0.0005)}}, "window", "window must be from 0.001 seconds to 366 days"),
        ({"groups": {"g": Limit("a", 1, 367 * 86400.0)}}, "window", "window must be from 0.001 seconds"),
        ({"groups": {"g": Limit("a", 1_000_001, 60.0)}}, "quota", "quota must be"),
    ],
)
def test_an_impossible_option_is_refused_in_clear_words(
    options: dict[str, Any], parameter: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RateLimiter(**{"groups": {"g": "1 per minute"}, **options})
    assert str(refused.value).startswith(said)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("window", "name", "shown"),
    [(1.0, "", "second"), (86400.0, "", "day"), (90.0, "", "90s"), (60.0, "X per 'Y'", "X per 'Y'")],
)
def test_a_limit_is_named_after_its_window_or_as_one_likes(window: float, name: str, shown: str) -> None:
    limiter = RateLimiter({"g": Limit(name, 1_000_000, window)})
    assert limiter.groups == {"g": (Limit(shown, 1_000_000, window),)}


def test_near_is_told_once_when_four_fifths_are_used() -> None:
    events: list[Any] = []
    limiter = RateLimiter({"g": Limit("minute", 1000, 60.0)}, clock=FrozenClock())
    hooks.add_observer(events.append)
    try:
        limiter.hit("g", "k", cost=799)
        assert [event for event in events if isinstance(event, RateLimitNear)] == []
        for _ in range(3):
            limiter.hit("g", "k")
    finally:
        hooks.remove_observer(events.append)
    assert [event for event in events if isinstance(event, RateLimitNear)] == [
        RateLimitNear("g", "minute", 800, 1000, "k")
    ]


def test_hits_of_the_former_window_can_be_given_back() -> None:
    clock = FrozenClock()
    clock.advance(60 - clock.monotonic() % 60)
    limiter = RateLimiter({"g": Limit("minute", 10, 60.0)}, strategy="sliding-window", clock=clock)
    first, second = limiter.reserve("g", "k", cost=4), limiter.reserve("g", "k", cost=2)
    clock.advance(60)
    assert limiter.hit("g", "k").remaining == (3,)
    first.cancel()
    assert limiter.test("g", "k").remaining == (7,)
    second.cancel()
    assert limiter.test("g", "k").remaining == (9,)


def test_a_turn_that_is_called_off_during_an_outage_frees_its_place(
    server: LosingRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    clock = FrozenClock()
    with RateLimiter({"g": "4 per minute"}, storage=server, store_budget=30, clock=clock) as limiter:
        assert isinstance(limiter._storage, RedisStorage)
        monkeypatch.setattr(limiter._storage.server, "in_doubt", lambda: True)
        assert limiter.pace("g").wait() == 0
        monkeypatch.setattr(operations.time, "sleep", interrupted)
        for _ in range(3):  # else the third would come too late
            with pytest.raises(KeyboardInterrupt):
                limiter.pace("g", timeout=20).wait()
