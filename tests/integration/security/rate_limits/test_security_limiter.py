"""The limiter on a real Redis: exact among processes, on the server's clock, equal to the counters in memory."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mks_hardening._core import hooks
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import Limit, RateLimiter, RedisTwoFactorStore
from mks_hardening.security.rate_limits._redis_counters import RedisCounters
from mks_hardening.security.rate_limits._windows import counter_for
from mks_hardening.testing import FrozenClock, LimiterContract
from testbed.polling import wait_until
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
    opened = []

    def make(strategy: str) -> Any:
        counters = RedisCounters(redis_url, strategy=strategy, namespace="t", store_budget=5)
        script = counters._client.script

        def timed_script(source: str, **_: Any) -> Any:
            return script(source.replace("redis.call('TIME')", SETTABLE_TIME))

        counters._client.script = timed_script
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
    counters, model = timed(strategy), counter_for(limits, strategy)
    most = min(limit.quota for limit in limits)
    moment, latest, floor = 1_700_000_000_000_000, 0, 0
    taken = []
    counters._client.call("FLUSHALL")
    counters._groups.clear()
    for operation, gap, cost in steps:
        floor = latest if operation == "back" else floor  # hits given back no longer hold the clock
        moment = max(moment + gap, floor)
        cost = min(cost, most)  # noqa: PLW2901 - hypothesis does not know the quotas
        counters._client.call("MSET", "test:s", moment // 1_000_000, "test:us", moment % 1_000_000)
        now = max(moment, latest)  # a server clock that steps back frees nothing
        if operation == "back":
            if taken:
                at, was = taken.pop()
                counters.give_back("g", "k", limits, at=at, cost=was).run()
                model.give_back(at, was)
            continue
        answer = getattr(counters, operation)("g", "k", limits, cost=cost).run()
        expected = model.hit(now, cost) if operation == "hit" else model.peek(now, cost)
        if expected.taken_at:
            taken.append((now, cost))
            latest = now
        assert answer._replace(newest=0, at=0) == expected


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
    assert keys == [
        b"mks:limit:{g:203.0.113.9}:counts",
        b"mks:limit:{g:203.0.113.9}:hits",
        b"mks:limit:{presence}:generation",
        b"mks:limit:{presence}:workers",
    ]
    assert all(admin.pttl(key) > 0 for key in keys)
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
    assert admin.keys("*{g:*") == []
    limiter.hit("g", "k", cost=5)
    before = [admin.dump(key) for key in sorted(admin.keys())]
    for _ in range(10):
        assert not limiter.hit("g", "k")
    assert [admin.dump(key) for key in sorted(admin.keys())] == before


@pytest.mark.parametrize(
    "key", ["a}b{c", "{}", "}", "現場", "\udc80", "a b\r\nSET x 1\r\n", "\0", "x" * 1024, "", "2001:db8::/64"]
)
def test_any_text_is_a_key(limiter: Any, key: Any) -> None:
    assert limiter.hit("g", key).remaining == (4, 499)
    assert limiter.hit("g", key).remaining == (3, 498)
    limiter.reset("g", key)
    assert limiter.hit("g", key).remaining == (4, 499)


def test_a_colon_does_not_merge_groups(redis_url: str) -> None:
    with RateLimiter({"a": "1 per minute", "a:b": "1 per minute"}, storage=redis_url, store_budget=5) as one:
        assert one.hit("a", "b:c")
        assert one.hit("a:b", "c")


def test_both_keys_are_in_one_slot(limiter: Any, admin: Any) -> None:
    for key in ("k", "a}b", "{x", "}{"):
        server = limiter._storage.server
        hits, counts = server._keys(server._of("g", limiter._groups["g"].limits), key)
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
    events = []
    hooks.add_observer(events.append)
    yield events
    hooks.remove_observer(events.append)


def test_redis_killed_still_limits_and_comes_back(make_redis: Any, seen: list[Any]) -> None:
    server = make_redis()
    groups = {"local": "5 per minute", "closed": "5 per minute", "open": "5 per minute"}
    policies = {"closed": "closed", "open": "open"}
    with RateLimiter(groups, storage=server.url, on_unavailable=policies) as limiter:
        assert limiter.hit("local", "k").remaining == (4,)
        server.kill()
        assert [bool(limiter.hit("local", "k")) for _ in range(8)] == [True] * 4 + [False] * 4
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
        assert [bool(limiter.hit("g", "k")) for _ in range(6)] == [True] * 4 + [False] * 2
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
        for _ in range(1_000):
            limiter.hit("g", "k")
        after = admin.info("commandstats")
    asked = after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    assert 6 <= asked <= 8  # five that pass, one that does not, and one for each second the rest may take
    assert isinstance(limiter._storage.server, RedisCounters)
    assert isinstance(limiter._storage.server._client, RedisClient)


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_lost_data_is_restored_once(redis_server: Any, strategy: Any) -> None:
    groups = {"g": "5 per minute, 50 per hour, 5000 per day"}
    with RateLimiter(groups, storage=redis_server.url, store_budget=5, strategy=strategy) as limiter:
        assert limiter.hit("g", "k", cost=2).remaining == (3, 48, 4998)
        redis_server.command("FLUSHALL")
        assert limiter.hit("g", "k").remaining == (2, 47, 4997)
        limiter.hit("g", "other")  # announces the process, which learns that all data was lost
        wait_until(lambda: not limiter._storage.counters.unsent, timeout=20)  # type: ignore[union-attr]  # it has one
        redis_server.command("CONFIG", "RESETSTAT")
        assert limiter.hit("g", "k").remaining == (1, 46, 4996)
        assert limiter.hit("g", "k").remaining == (0, 45, 4995)
        assert redis_server.command_count("evalsha") == 2


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
            await limiter.aclose()
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


# --- what it may be given --------------------------------------------------------------------------


def clients_of(url: str) -> list[Any]:
    return [url, RedisClient(url, name="shared"), redis.Redis.from_url(url)]


@pytest.mark.parametrize("which", range(3))
def test_it_takes_a_url_one_of_our_clients_or_one_of_redis_py(redis_url: str, which: int) -> None:
    given = clients_of(redis_url)[which]
    limiter = RateLimiter({"g": "3 per minute"}, storage=given, store_budget=5)
    store = RedisTwoFactorStore(given, store_budget=5)

    async def play() -> None:
        assert (await limiter.ahit("g", "k")).remaining == (1,)
        assert await store.areplace("u", b"x", expected=None, version="a")
        assert await store.aload("u") == ("a", b"x")
        await limiter.aclose()
        assert (await store.ascan(None, limit=10))[0] == ["u"]
        await store.aclose()

    assert limiter.hit("g", "k").remaining == (2,)
    asyncio.run(play())
    if which == 1:
        assert given.ping()
    if which:
        given.close()


def test_a_handed_in_client_keeps_to_our_budget(redis_server: Any) -> None:
    """Its own settings would wait for ever on a server that hangs."""
    with (
        redis.Redis(port=redis_server.port) as given,
        RateLimiter({"g": "5 per minute"}, storage=given, on_unavailable="closed") as limiter,
    ):
        wait_until(lambda: limiter.hit("g", "k").allowed, what="a hit within its budget")
        redis_server.pause()
        try:
            refused = limiter.hit("g", "k")
        finally:
            redis_server.resume()
        assert not refused
        assert refused.retry_after


# --- hits that the server does not know of -----------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("counted", "unknown", "used"),
    [
        (0, ((0, 0), (0, 0)), (0, 0)),
        (0, ((3, 0), (40, 0)), (3, 40)),
        (0, ((3, 2), (40, 7)), (5, 47)),
        (2, ((0, 3), (0, 3)), (5, 5)),
        (4, ((3, 0), (40, 0)), (7, 44)),
        (4, ((3, 90), (40, 90)), (10, 100)),
    ],
)
def test_what_the_server_lacks_is_added_to_each_limit(
    redis_url: str, strategy: Any, counted: int, unknown: Any, used: Any
) -> None:
    """The caller has seen hits that are older than the data: they were lost."""
    limits = (Limit("minute", 10, 60.0), Limit("hour", 100, 3600.0))
    counters = RedisCounters(redis_url, strategy=strategy, store_budget=5)
    if counted:
        counters.hit("g", "k", limits, cost=counted).run()
    now = time.time_ns() // 1000
    remaining = (
        counters.restore("g", "k", limits, unknown, known=(now - 5_000_000, now + 60_000_000)).run().remaining
    )
    assert tuple(limit.quota - left for limit, left in zip(limits, remaining, strict=True)) == used
    reset_after = counters.hit("g", "k", limits, cost=1).run().reset_after
    assert all(reset <= 2 * limit.window * 1e6 for limit, reset in zip(limits, reset_after, strict=True))
    counters.close()
