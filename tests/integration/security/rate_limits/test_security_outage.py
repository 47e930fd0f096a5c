"""The policy ``local``: several processes that lose their Redis still let pass about what the limit allows."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from limit_workers import LIMIT, SLACK, WORKERS, LimitWorkers, play
from mks_hardening import events
from mks_hardening.security import ConcurrencyLimiter, RateLimiter
from testbed.polling import wait_until
from turns import turn

pytestmark = pytest.mark.redis

STRATEGIES = ["exact-window", "sliding-window", "fixed-window", "gcra"]


@pytest.fixture
def workers() -> Iterator[Callable[..., LimitWorkers]]:
    opened: list[LimitWorkers] = []

    def make(*arguments: Any) -> LimitWorkers:
        opened.append(LimitWorkers(*arguments))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("how", ["kill", "kill, restart empty", "stop, continue"])
def test_four_workers_pass_little_more_than_the_limit(
    make_redis: Any, workers: Callable[..., LimitWorkers], how: str, strategy: str
) -> None:
    server = make_redis()
    one = workers(server.url, strategy)
    away, back = {
        "kill": (server.kill, None),
        "kill, restart empty": (server.kill, server.start),
        "stop, continue": (server.pause, server.resume),
    }[how]
    passed = play(one, away=away, back=back)
    assert LIMIT - SLACK <= passed <= LIMIT + SLACK


def restart_with_an_old_snapshot(server: Any) -> None:
    server.kill()
    shutil.copy(server.directory / "kept.rdb", server.directory / "dump.rdb")
    server.start()


def evict(policy: str) -> Callable[[Any], None]:
    """Return what writes other keys until a full server has deleted the counts of the key ``k``."""

    def evict_counts(server: Any) -> None:
        with server.client() as client:
            counts = client.keys("mks:limit:{g:k}:*") or ["gone already"]
            client.config_set("maxmemory-policy", policy)
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
            for number in range(2_000):
                if not client.exists(*counts):
                    return
                client.mset({f"other {number} {part}": "x" * 200 for part in range(100)})
        pytest.fail("the counts were not evicted")

    return evict_counts


LOSSES: dict[str, tuple[tuple[int, ...], Callable[[Any], None]]] = {
    # After how many hits what happens, while everybody goes on as if nothing had.
    "flush": ((50,), lambda server: server.command("FLUSHALL")),
    "flush four times": ((20, 20, 20, 20), lambda server: server.command("FLUSHALL")),
    "flush four times when all is used": ((100, 40, 40, 40), lambda server: server.command("FLUSHALL")),
    "quick restart": ((50,), lambda server: (server.kill(), server.start())),
    "quick restart twice": ((40, 40), lambda server: (server.kill(), server.start())),
    "restart with an old snapshot": ((50,), restart_with_an_old_snapshot),
    "eviction of the least recently used": ((50,), evict("allkeys-lru")),
    "eviction at random": ((50,), evict("allkeys-random")),
    "eviction four times": ((20, 20, 20, 20), evict("allkeys-lru")),
    "eviction four times when all is used": ((100, 40, 40, 40), evict("allkeys-random")),
    "clock an hour ahead": ((50,), lambda server: server.move_clock(3600)),
    "clock an hour behind": ((50,), lambda server: server.move_clock(-3600)),
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at_once", [False, True], ids=["in turns", "at once"])
@pytest.mark.parametrize("how", LOSSES)
def test_a_loss_of_the_data_is_known_at_the_next_hit(
    make_redis: Any, workers: Callable[..., LimitWorkers], how: str, at_once: bool, strategy: str
) -> None:
    snapshot = how == "restart with an old snapshot"
    options = {"save": "3600 1000000"} if snapshot else {}
    server = make_redis(options=options, movable_clock=how.startswith("clock"))
    one = workers(server.url, strategy, 1)  # a busy machine is no outage
    wait_until(one.all_see_the_server, timeout=20)
    hits = one.rush if at_once else one.hits
    steps, happen = LOSSES[how]
    if snapshot:
        hits(20)
        server.command("SAVE")
        shutil.copy(server.directory / "dump.rdb", server.directory / "kept.rdb")
        steps = (30,)
    for step in steps:
        hits(step - WORKERS)
        one.hits(WORKERS)  # under traffic all know about the same
        if "restart" in how:
            wait_until(one.all_are_quiet, timeout=20)  # for a worker that notices a restart it is an outage
        happen(server)
    hits(2 * LIMIT)
    wait_until(one.all_see_the_server, timeout=20)
    hits(2 * LIMIT)
    assert LIMIT - SLACK <= one.passed <= LIMIT + SLACK


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at_once", [False, True], ids=["in turns", "at once"])
def test_workers_that_come_back_one_after_the_other_wait_for_each_other(
    make_redis: Any, workers: Callable[..., LimitWorkers], at_once: bool, strategy: str
) -> None:
    """What each has let pass is known to all before anybody uses what the server says is left."""
    server = make_redis()
    one = workers(server.url, strategy)
    wait_until(one.all_see_the_server, timeout=20)
    hits = one.rush if at_once else one.hits
    hits(LIMIT // 2 - WORKERS)
    one.hits(WORKERS)  # under traffic all know about the same
    server.pause()
    hits(2 * LIMIT)
    server.resume()
    before = one.passed

    def all_are_back() -> bool:
        hits(WORKERS)
        return one.all_see_the_server()

    wait_until(all_are_back, timeout=20)
    hits(2 * LIMIT)
    assert before >= LIMIT // 2
    assert LIMIT - SLACK <= one.passed <= LIMIT + SLACK


def test_hits_of_an_outage_are_counted_when_it_is_over(make_redis: Any) -> None:
    """And so is what a server that came back empty had been told before, in every limit and no other."""
    server = make_redis()
    groups = {"g": "10 per second; 100 per hour; 1000 per day"}
    with RateLimiter(groups, storage=server.url) as limiter:
        for _ in range(8):
            assert limiter.hit("g", "k")
        server.kill()
        assert limiter.hit("g", "k")
        assert limiter.hit("g", "k")
        assert not limiter.hit("g", "k")
        server.start()
        wait_until(limiter._storage.server._client.ping, timeout=20)  # type: ignore[union-attr]  # it has one
        wait_until(lambda: bool(limiter.hit("g", "k")), timeout=20)  # the second has passed by then
        assert limiter.test("g", "k").remaining[1:] == (89, 989)


@pytest.mark.parametrize("how", ["empty", "stopped"])
def test_what_one_process_let_pass_is_known_before_its_clients_go_to_another(
    make_redis: Any, how: str
) -> None:
    """No further hit of the key is needed: a balancer may send all of them elsewhere."""
    server = make_redis()
    with (
        # A busy machine is no outage.
        RateLimiter({"g": "100 per hour"}, storage=server.url, store_budget=1) as one,
        RateLimiter({"g": "100 per hour"}, storage=server.url, store_budget=1) as other,
    ):

        def know_each_other() -> bool:
            for limiter in (one, other):
                limiter.hit("g", "own")
            return all(limiter._storage.members.workers == 2 for limiter in (one, other))  # type: ignore[union-attr]

        wait_until(know_each_other, timeout=20)
        assert all(one.hit("g", "k") for _ in range(10))
        (server.kill if how == "empty" else server.pause)()
        passed = sum(bool(one.hit("g", "k")) for _ in range(100))
        assert passed == 45
        (server.start if how == "empty" else server.resume)()

        def seen() -> int:
            return 0 if other._storage.counts_locally() else 100 - other.test("g", "k").remaining[0]  # type: ignore[union-attr]

        # The call in vain may have been carried out by a server that stood still.
        wait_until(lambda: seen() >= 55, timeout=20)
        assert sum(bool(other.hit("g", "k")) for _ in range(100)) in (44, 45)


@pytest.fixture
def failed() -> Iterator[list[events.BackendFailed]]:
    """Calls to the storage that were made in vain."""
    seen: list[events.BackendFailed] = []

    def note(event: object) -> None:
        if isinstance(event, events.BackendFailed) and event.backend in ("limits", "slots"):
            seen.append(event)

    events.add_observer(note)
    yield seen
    events.remove_observer(note)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_one_call_of_an_outage_waits_and_all_others_are_decided_here(
    make_redis: Any, failed: list[events.BackendFailed], how: str
) -> None:
    server = make_redis()
    with (
        RateLimiter({"g": "1000000 per hour"}, storage=server.url, store_budget=0.3) as limiter,
        ConcurrencyLimiter({"g": 1_000_000}, storage=server.url, store_budget=0.3) as slots,
    ):
        assert limiter.hit("g", "k")
        assert slots.acquire("g")
        getattr(server, how)()
        for _ in range(200):
            assert limiter.hit("g", "k")
            assert limiter.test("g", "k")
            assert slots.acquire("g", str(id(server)))
            assert turn(limiter, "g", timeout=1000) >= 0
        assert len(failed) == 1
        if how == "pause":
            server.resume()
        else:
            server.start()
        wait_until(lambda: not limiter._storage.server.in_doubt(), timeout=20)  # type: ignore[union-attr]  # it has one
        limiter.hit("g", "k")
        # The call in vain may have been carried out by a server that stood still.
        assert 1_000_000 - limiter.test("g", "k").remaining[0] in (202, 203)


def test_a_limiter_waits_for_its_storage_less_than_50_ms() -> None:
    assert RateLimiter.__init__.__kwdefaults__["store_budget"] <= 0.045  # type: ignore[index]
    assert ConcurrencyLimiter.__init__.__kwdefaults__["store_budget"] <= 0.045  # type: ignore[index]
