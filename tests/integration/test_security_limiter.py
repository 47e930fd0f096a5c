"""The limiter on a real Redis: exact among processes, on the server's clock, equal to the counters in memory."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mks_hardening._core import hooks
from mks_hardening._core.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import Limit, RateLimiter
from mks_hardening.security._limiter_redis import _COUNT, RedisCounters
from mks_hardening.security._windows import counter_for
from mks_hardening.testing import FrozenClock, LimiterContract
from together import run_together

STRATEGIES = ["exact-window", "sliding-window", "fixed-window", "gcra"]

pytestmark = pytest.mark.redis


class TestMemoryLimiter(LimiterContract):
    def make_limiter(self, groups: Any) -> Any:
        return RateLimiter(groups, clock=FrozenClock())


class TestRedisLimiter(LimiterContract):
    strategy = "auto"

    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> Iterator[Any]:
        self.url = redis_url
        self.opened = []
        yield
        for limiter in self.opened:
            limiter.close()

    def make_limiter(self, groups: Any) -> Any:
        limiter = RateLimiter(
            groups, storage=self.url, store_budget=5, strategy=self.strategy, on_unavailable="closed"
        )
        self.opened.append(limiter)
        return limiter


class TestRedisLimiterBySlidingWindow(TestRedisLimiter):
    strategy = "sliding-window"


class TestRedisLimiterByFixedWindow(TestRedisLimiter):
    strategy = "fixed-window"


class TestRedisLimiterByGcra(TestRedisLimiter):
    strategy = "gcra"


@pytest.fixture
def limiter(redis_url: str) -> Iterator[Any]:
    with RateLimiter(
        {"g": "5 per minute, 500 per hour", "wide": "100 per minute"}, storage=redis_url, store_budget=5
    ) as one:
        yield one


@pytest.fixture
def admin(redis_server: Any) -> Iterator[Any]:
    with redis.Redis(port=redis_server.port) as client:
        yield client


# --- the same arithmetic ---------------------------------------------------------------------------

SETTABLE_TIME = "{redis.call('GET', 'test:s'), redis.call('GET', 'test:us')}"


@pytest.fixture
def timed(redis_url: str) -> Iterator[Any]:
    """Counters whose script reads the moment from a key instead of the server's clock."""
    assert "redis.call('TIME')" in _COUNT
    opened = []

    def make(strategy: str) -> Any:
        counters = RedisCounters(redis_url, strategy=strategy, namespace="t", store_budget=5)
        counters._count = counters._client.script(_COUNT.replace("redis.call('TIME')", SETTABLE_TIME))
        opened.append(counters)
        return counters

    yield make
    for counters in opened:
        counters.close()


limit_lists = st.lists(
    st.tuples(st.integers(1, 150), st.sampled_from([10.0, 60.0, 3600.0])), min_size=1, max_size=3
).map(lambda rows: tuple(Limit(f"l{number}", quota, window) for number, (quota, window) in enumerate(rows)))
operations = st.lists(
    st.tuples(
        st.sampled_from(["hit", "hit", "hit", "test", "back"]),
        st.one_of(st.just(0), st.integers(0, 2_000), st.integers(0, 90_000_000), st.integers(-60_000_000, 0)),
        st.integers(1, 20),
    ),
    max_size=25,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=limit_lists, strategy=st.sampled_from(["auto", *STRATEGIES]), steps=operations)
def test_redis_decides_like_the_counters_in_memory(
    timed: Any, limits: Any, strategy: str, steps: Any
) -> None:
    counters, model = timed(strategy), [counter_for(limit, strategy) for limit in limits]
    most = min(limit.quota for limit in limits)
    moment, latest, floor = 1_700_000_000_000_000, 0, 0
    taken = []
    counters._client.call("FLUSHALL")
    counters._arguments.clear()
    for operation, gap, cost in steps:
        floor = latest if operation == "back" else floor  # hits given back no longer hold the clock
        moment = max(moment + gap, floor)
        cost = min(cost, most)  # noqa: PLW2901 - hypothesis does not know the quotas
        counters._client.call("MSET", "test:s", moment // 1_000_000, "test:us", moment % 1_000_000)
        now = max(moment, latest)  # a server clock that steps back frees nothing
        if operation == "back":
            if taken:
                at, was = taken.pop()
                counters.give_back("g", "k", limits, at=at, cost=was)
                for counter in model:
                    counter.give_back(at, was)
            continue
        answer = getattr(counters, operation)("g", "k", limits, cost=cost)
        looks = [counter.look(now, cost) for counter in model]
        if operation == "hit" and not any(look.retry_after for look in looks):
            for counter in model:
                counter.take(now, cost)
            looks = [counter.look(now, 0) for counter in model]
            taken.append((now, cost))
            latest = now
            assert answer.taken_at == now
        else:
            assert answer.taken_at is None
        assert list(answer.looks) == looks


# --- exact among processes -------------------------------------------------------------------------

HAMMER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from mks_hardening.security import RateLimiter

groups = {"wide": "100 per minute"}
limiter = RateLimiter(groups, storage=sys.argv[1], store_budget=5, strategy=sys.argv[2], on_unavailable="closed")
limiter.test("wide", "k")
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(lambda _: bool(limiter.hit("wide", "k")), range(80))), flush=True)
"""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_processes_and_threads_share_one_exact_count(redis_url: str, strategy: str) -> None:
    passed = run_together(HAMMER, redis_url, strategy)
    assert sum(int(number) for (number,) in passed) == 100


def test_the_clock_of_the_host_does_not_matter(redis_url: str) -> None:
    hosts = []
    for start in (0.0, 1_700_000_000.0, 4_000_000_000.0):
        clock = FrozenClock(start)
        hosts.append(RateLimiter({"g": "20 per minute"}, storage=redis_url, store_budget=5, clock=clock))
    assert sum(bool(host.hit("g", "k")) for _ in range(20) for host in hosts) == 20
    for host in hosts:
        host.close()


# --- keys ------------------------------------------------------------------------------------------


def test_what_is_stored_vanishes_by_itself(limiter: Any, admin: Any) -> None:
    limiter.hit("g", "203.0.113.9")
    keys = sorted(admin.keys())
    assert keys == [b"mks:limit:{g:203.0.113.9}:counts", b"mks:limit:{g:203.0.113.9}:hits"]
    assert 59_000 < admin.pttl(keys[1]) <= 60_000
    assert 7_199_000 < admin.pttl(keys[0]) <= 7_200_000


def test_memory_is_bounded_by_the_quota(redis_url: str, admin: Any) -> None:
    with RateLimiter({"g": "50 per minute"}, storage=redis_url, store_budget=5) as limiter:
        for _ in range(200):
            limiter.hit("g", "k")
        limiter.reset("g", "k")
        for _ in range(200):
            limiter.hit("g", "k")
        assert admin.llen("mks:limit:{g:k}:hits") == 50


def test_refused_and_tested_hits_write_nothing(limiter: Any, admin: Any) -> None:
    limiter.test("g", "k")
    assert admin.keys() == []
    limiter.hit("g", "k", cost=5)
    before = [admin.dump(key) for key in sorted(admin.keys())]
    for _ in range(10):
        assert not limiter.hit("g", "k")
    assert [admin.dump(key) for key in sorted(admin.keys())] == before


@pytest.mark.parametrize(
    "key", ["a}b{c", "{}", "}", "現場", "\udc80", "a b\r\nSET x 1\r\n", "\0", "x" * 1024, "2001:db8::/64"]
)
def test_any_text_is_a_key(limiter: Any, key: Any) -> None:
    assert limiter.hit("g", key).remaining == (4, 499)
    assert limiter.hit("g", key).remaining == (3, 498)
    limiter.reset("g", key)
    assert limiter.hit("g", key).remaining == (4, 499)


def test_both_keys_are_in_one_slot(limiter: Any, admin: Any) -> None:
    for key in ("k", "a}b", "{x", "}{"):
        hits, counts = limiter._counters._keys("g", key)
        assert redis.cluster.key_slot(hits.encode()) == redis.cluster.key_slot(counts.encode())


def test_namespaces_are_apart(redis_url: str) -> None:
    with (
        RateLimiter({"g": "1 per minute"}, storage=redis_url, store_budget=5, namespace="a") as first,
        RateLimiter({"g": "1 per minute"}, storage=redis_url, store_budget=5, namespace="b") as second,
    ):
        assert first.hit("g", "k")
        assert second.hit("g", "k")
        assert not first.hit("g", "k")


@pytest.mark.parametrize("namespace", ["", "a b", "a{b"])
def test_impossible_namespaces(redis_url: str, namespace: Any) -> None:
    with pytest.raises(ConfigurationError):
        RateLimiter({"g": "1 per minute"}, storage=redis_url, store_budget=5, namespace=namespace)


def test_a_client_of_the_application_may_be_used(redis_server: Any) -> None:
    with redis.Redis(port=redis_server.port) as client:
        limiter = RateLimiter({"g": "1 per minute"}, storage=client, store_budget=5, on_unavailable="closed")
        assert [bool(limiter.hit("g", "k")) for _ in range(2)] == [True, False]


def test_a_large_cost_is_taken_whole(redis_url: str) -> None:
    with RateLimiter(
        {"g": "20000 per minute"},
        storage=redis_url,
        store_budget=5,
        strategy="exact-window",
        on_unavailable="closed",
    ) as limiter:
        assert limiter.hit("g", "k", cost=19_999).remaining == (1,)
        assert not limiter.hit("g", "k", cost=2)
        assert limiter.hit("g", "k")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reservations_are_given_back(redis_url: str, strategy: str) -> None:
    with RateLimiter({"g": "3 per minute"}, storage=redis_url, store_budget=5, strategy=strategy) as limiter:
        for _ in range(10):
            reservation = limiter.reserve("g", "k", cost=2)
            assert reservation
            reservation.cancel()
        assert limiter.test("g", "k").remaining == (3,)


# --- outages ---------------------------------------------------------------------------------------


@pytest.fixture
def seen() -> Iterator[Any]:
    told = []
    hooks.add_observer(told.append)
    yield told
    hooks.remove_observer(told.append)


def test_redis_killed_still_limits_and_comes_back(make_redis: Any, seen: list[Any]) -> None:
    server = make_redis()
    groups = {"local": "5 per minute", "closed": "5 per minute", "open": "5 per minute"}
    policies = {"closed": "closed", "open": "open"}
    with RateLimiter(groups, storage=server.url, on_unavailable=policies) as limiter:
        assert limiter.hit("local", "k").remaining == (4,)
        server.kill()
        assert [bool(limiter.hit("local", "k")) for _ in range(8)] == [True] * 5 + [False] * 3
        refused = limiter.hit("closed", "k")
        assert not refused
        assert refused.retry_after > 0
        assert all(limiter.hit("open", "k") for _ in range(8))
        with pytest.raises(BackendUnavailableError):
            limiter.reset("local", "k")
    sources = {event.source for event in seen if type(event).__name__ == "RateLimitDecided"}
    assert sources == {"backend", "local", "closed", "open"}


def test_a_server_that_hangs_costs_no_more_than_its_budget(redis_server: Any) -> None:
    with RateLimiter({"g": "5 per minute"}, storage=redis_server.url) as limiter:
        assert limiter.hit("g", "k")
        redis_server.pause()
        assert [bool(limiter.hit("g", "k")) for _ in range(6)] == [True] * 5 + [False]
        redis_server.resume()


def test_scripts_that_the_server_forgot_are_sent_again(limiter: Any, admin: Any) -> None:
    assert limiter.hit("g", "k")
    admin.script_flush()
    assert limiter.hit("g", "k").remaining == (3, 498)


def test_one_round_trip_for_a_group(redis_url: str, admin: Any) -> None:
    with RateLimiter(
        {"g": "5 per minute, 50 per hour, 5000 per day"}, storage=redis_url, store_budget=5
    ) as limiter:
        limiter.hit("g", "warm")
        before = admin.info("commandstats")
        for _ in range(10):
            limiter.hit("g", "k")
        after = admin.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 10
    assert isinstance(limiter._counters, RedisCounters)
    assert isinstance(limiter._counters._client, RedisClient)


def test_coroutines_are_limited_without_holding_up_the_loop(redis_server: Any) -> None:
    """While Redis hangs, another task goes on."""
    with RateLimiter({"g": "2 per minute"}, storage=redis_server.url, store_budget=0.5) as limiter:

        @limiter.limit("g", key=lambda: "k")
        async def work() -> str:
            return "done"

        async def play() -> int:
            assert await work() == "done"
            redis_server.pause()
            turns = 0
            task = asyncio.ensure_future(work())
            while not task.done():
                turns += 1
                await asyncio.sleep(0.001)
            assert await task == "done"
            return turns

        assert asyncio.run(play()) > 20


def test_a_lost_reply_counts_once(fault_proxy: Any, redis_url: str) -> None:
    """What may have been counted is not sent again."""
    groups = {"g": "5 per minute"}
    with RateLimiter(
        groups, storage=fault_proxy.through(redis_url), store_budget=5, on_unavailable="closed"
    ) as limiter:
        assert limiter.hit("g", "k").remaining == (4,)
        fault_proxy.lose_reply(matching=b"EVALSHA")
        assert not limiter.hit("g", "k")
    with RateLimiter(groups, storage=redis_url, store_budget=5) as limiter:
        assert limiter.test("g", "k").remaining == (3,)


def test_clear_text_stays_on_this_machine_unless_asked_for() -> None:
    with pytest.raises(ConfigurationError):
        RateLimiter({"g": "5 per minute"}, storage="redis://192.0.2.1:6379")
    RateLimiter({"g": "5 per minute"}, storage="redis://192.0.2.1:6379", allow_plaintext=True).close()
