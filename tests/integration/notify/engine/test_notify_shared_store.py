"""What processes agree on in a real Redis: one alert and one digest a window, and no repetition forgotten."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.notify import AlertPolicy, AlertStats, WebhookNotificationHandler
from mks_hardening.notify.engine._shared_store import SharedStore
from mks_hardening.protocols import Clock
from mks_hardening.testing import FrozenClock, RecordingTransport
from testbed.polling import free_port, wait_until
from testbed.redis_groups import RedisCluster
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

Make = Callable[..., SharedStore]


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def build(*, window: float = 300, destination: str = "slack:x") -> SharedStore:
            store = SharedStore(
                redis_server.url, destination=destination, window=window, clock=SYSTEM_CLOCK, budget=5
            )
            stack.callback(store.close)
            return store

        yield build


def test_one_of_them_tells_of_the_alert(make: Make) -> None:
    first, second = make(), make()
    assert first.admit("f1") == 0
    assert second.admit("f1") == -1
    assert first.admit("f1") == -1
    assert second.admit("f2") == 0


def test_destinations_do_not_meet(make: Make) -> None:
    assert make(destination="slack:x").admit("f1") == 0
    assert make(destination="slack:y").admit("f1") == 0


def test_the_last_to_close_tells_the_repetitions_of_all(make: Make) -> None:
    first, second, third = make(), make(), make()
    assert [store.admit("f1") for store in (first, second, third)] == [0, -1, -1]
    assert first.collect("f1", 10, moment="close") == 0
    assert second.collect("f1", 20, moment="close") == 0
    assert third.collect("f1", 30, moment="close") == 60


def test_flush_tells_only_where_nobody_else_counts(make: Make) -> None:
    first, second = make(), make()
    first.admit("f1")
    second.admit("f1")
    assert first.collect("f1", 10, moment="flush") == 0
    assert second.collect("f1", 5, moment="close") == 0
    assert first.collect("f1", 0, moment="flush") == 15


def test_one_digest_a_window_is_enough(make: Make) -> None:
    first = make()
    first.admit("f1")
    assert first.collect("f1", 10, moment="flush") == 10
    assert first.collect("f1", 5, moment="flush") == 0
    assert first.collect("f1", 1, moment="close") == 0
    late = make()
    assert late.admit("f1") == -1
    assert late.collect("f1", 1, moment="close") == 0


def test_when_the_window_ends_somebody_tells_what_is_left(make: Make) -> None:
    first, second = make(window=0.2), make(window=0.2)
    first.admit("f1")
    second.admit("f1")
    assert first.collect("f1", 10, moment="window") == 0
    assert wait_until(lambda: second.collect("f1", 0, moment="window")) == 10
    assert first.collect("f1", 3, moment="window") == 0
    assert wait_until(lambda: first.collect("f1", 0, moment="window")) == 3


def test_what_nobody_could_tell_comes_with_the_next_alert(make: Make) -> None:
    gone, left = make(window=0.2), make(window=0.2)
    gone.admit("f1")
    left.admit("f1")  # and then is killed, still counted as alive
    assert gone.collect("f1", 7, moment="close") == 0
    wait_until(lambda: (answer := left.admit("f1")) != -1 and answer == 7)


def test_a_window_without_repetitions_is_left_behind_without_waiting_for_it(make: Make) -> None:
    first, second = make(window=5), make(window=5)
    first.admit("f1")
    second.admit("f1")
    second.collect("f1", 0, moment="hand over")
    assert first.collect("f1", 4, moment="close") == 4


def test_what_is_handed_over_is_told_by_whoever_asks_first(make: Make) -> None:
    first, second = make(window=0.2), make(window=0.2)
    first.admit("f1")
    second.admit("f1")
    assert first.collect("f1", 10, moment="hand over") == 0
    assert second.collect("f1", 20, moment="hand over") == 0
    assert wait_until(lambda: first.collect("f1", 0, moment="window")) == 30
    assert second.collect("f1", 0, moment="window") == 0


def test_a_lost_reply_counts_once(redis_server: RedisServer, make_fault_proxy: Callable[..., Any]) -> None:
    proxy = make_fault_proxy("127.0.0.1", redis_server.port)
    store = SharedStore(proxy.through(redis_server.url), destination="x", window=300, clock=SYSTEM_CLOCK)
    assert store.admit("f0") == 0
    assert store.collect("f0", 1, moment="flush") == 1
    proxy.lose_reply(matching=b"EVALSHA")
    assert store.admit("f1") == 0
    proxy.lose_reply(matching=b"EVALSHA")
    assert store.collect("f1", 5, moment="flush") == 5
    store.close()


def test_the_last_question_of_a_process_is_more_patient(make: Make, redis_server: RedisServer) -> None:
    other = make()
    assert other.admit("f1") == 0
    hurried = SharedStore(
        redis_server.url, destination="slack:x", window=300, clock=SYSTEM_CLOCK, budget=0.05
    )
    redis_server.pause()
    assert hurried.admit("f1") is None
    back = threading.Timer(0.2, redis_server.resume)
    back.start()
    assert hurried.collect("f1", 5, moment="close") == 0
    back.join()
    assert other.collect("f1", 2, moment="close") == 7
    hurried.close()


def test_keys_are_bounded_in_time_and_hold_no_address(make: Make, redis_server: RedisServer) -> None:
    store = make(destination="slack:https://hooks.slack.com/services/hunter22")
    store.admit("f1")
    store.collect("f1", 5, moment="flush")
    client = redis.Redis(port=redis_server.port)
    keys = client.keys("*")
    assert keys
    assert all(b"hunter22" not in key for key in keys)
    assert all(0 < client.ttl(key) <= 86_400 for key in keys)
    client.close()


@pytest.mark.parametrize("fault", ["away", "wrong type"])
def test_a_store_in_trouble_says_nothing(redis_server: RedisServer, fault: str) -> None:
    url = redis_server.url if fault == "wrong type" else f"redis://localhost:{free_port()}/0"
    store = SharedStore(url, destination="x", window=300, clock=SYSTEM_CLOCK)
    if fault == "wrong type":
        redis_server.command("SET", f"{store._prefix}:f1", "x")
    assert store.admit("f1") is None
    assert store.collect("f1", 5, moment="close") is None
    store.close()


def test_a_client_that_was_handed_in_stays_open(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url) as client:
        SharedStore(client, destination="x", window=1, clock=SYSTEM_CLOCK).close()
        wait_until(client.ping)
    foreign = redis.Redis(port=redis_server.port)
    store = SharedStore(foreign, destination="x", window=1, clock=SYSTEM_CLOCK)
    assert store.admit("f1") == 0
    store.close()
    assert foreign.ping()
    foreign.close()


def handler(
    store: Any, transport: RecordingTransport, *, clock: Clock = SYSTEM_CLOCK, **policy: Any
) -> WebhookNotificationHandler:
    known = AlertPolicy(shared_store=store, **{"rate": 1000, **policy})
    return WebhookNotificationHandler(
        "http://localhost/", transport=transport, policy=known, lang="en", clock=clock
    )


def log_to(target: WebhookNotificationHandler, *names: str) -> None:
    log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
    log.addHandler(target)
    for name in names:
        log.error("%s broke", name)


def repeats(*transports: RecordingTransport) -> list[int]:
    return [
        alert["repeats"]
        for transport in transports
        for message in transport.messages
        for alert in json.loads(message.body)["alerts"]
    ]


def test_two_handlers_tell_once_and_count_exactly(redis_server: RedisServer) -> None:
    ways = RecordingTransport(), RecordingTransport()
    first, second = (handler(redis_server.url, way) for way in ways)
    log_to(first, "a")
    assert first.flush(5)
    log_to(second, *"aaaa")
    log_to(first, *"aa")
    assert second.flush(5)
    first.close()
    second.close()
    assert repeats(*ways) == [0, 6]
    assert second.stats() == AlertStats(logged=4, suppressed=4, deliveries=second.stats().deliveries)
    assert first.stats() == AlertStats(
        logged=3, delivered=1, suppressed=2, deliveries=first.stats().deliveries
    )


def test_windows_that_end_together_make_one_digest_of_all(redis_server: RedisServer) -> None:
    ways, clock = [RecordingTransport() for _ in range(4)], FrozenClock()
    several = [handler(redis_server.url, way, clock=clock, dedup_window=1) for way in ways]
    for target in several:
        log_to(target, *"a" * 250)
        assert target.flush(5)
    store = redis_server.client()

    (key,) = [key for key in store.keys("mks:alerts:*") if not key.endswith(b":alive")]

    def told_by_store(field: str) -> int:
        return int(store.hget(key, field) or 0)

    handed = sum(repeats(*ways))  # by the flush, where nobody else counted yet
    wait_until(lambda: told_by_store("until") <= store.time()[0] * 1000 + store.time()[1] // 1000)
    clock.advance(1)
    for target in several:
        log_to(target, "poke")  # wakes the worker
    wait_until(lambda: told_by_store("unreported") == 999 - handed)

    def is_told() -> bool:
        # A process notes when it handed over after the store has counted it: the clock goes on until both are past.
        clock.advance(0.2)
        for target in several:
            log_to(target, "poke")
        return 999 - handed in repeats(*ways)

    wait_until(is_told)
    for target in several:
        target.close()
    result = [number for number in repeats(*ways) if number]
    assert max(result) == 999 - handed


def test_what_waited_behind_a_destination_that_hung_is_told_of(redis_server: RedisServer) -> None:
    """Two of a kind, further apart than their window, are asked about at one moment when the hang is over."""
    way, clock = HangingTransport(), FrozenClock()
    target = handler(redis_server.url, way, clock=clock)
    log_to(target, "other")
    assert way.entered.wait(10)
    log_to(target, "a")
    clock.advance(301)
    log_to(target, "a")
    clock.advance(301)
    way.goes_on.set()
    wait_until(lambda: target.stats().pending == 0, what="the worker")
    target.close()
    assert sum(repeats(way)) == 1
    assert len(way.messages) == 3
    assert (target.stats().delivered, target.stats().suppressed) == (2, 1)


class HangingTransport(RecordingTransport):
    """Its first message hangs until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.goes_on = threading.Event(), threading.Event()

    def send(self, message: Any, /) -> None:
        self.entered.set()
        assert self.goes_on.wait(30)
        super().send(message)


def test_a_store_that_goes_away_leaves_each_process_to_itself(redis_server: RedisServer) -> None:
    ways = RecordingTransport(), RecordingTransport()
    first, second = (handler(redis_server.url, way) for way in ways)
    log_to(first, "a")
    first.flush(5)
    redis_server.kill()
    log_to(second, *"aaa")
    log_to(first, *"aa")
    first.close()
    second.close()
    assert repeats(ways[0]) == [0, 2]
    assert repeats(ways[1]) == [0, 2]


HANDED_IN: dict[str, Callable[[RedisServer], Any]] = {
    "URL": lambda server: server.url,
    "our client": lambda server: RedisClient(server.url, name="cache"),
    "redis.Redis": lambda server: redis.Redis.from_url(server.url),
    "redis.Redis that decodes": lambda server: redis.Redis.from_url(server.url, decode_responses=True),
}


@pytest.mark.parametrize("kind", HANDED_IN)
def test_a_url_or_any_client_will_do_and_stays_open(redis_server: RedisServer, kind: str) -> None:
    handed_in = HANDED_IN[kind](redis_server)
    way = RecordingTransport()
    with handler(handed_in, way) as target:
        log_to(target, *"aaa")
        assert target.flush(5)
    assert repeats(way) == [0, 2]
    assert redis_server.client().dbsize() > 0
    if not isinstance(handed_in, str):
        with contextlib.closing(handed_in):
            assert handed_in.ping()


@pytest.mark.parametrize("kind", HANDED_IN)
def test_a_server_that_hangs_holds_neither_the_caller_nor_the_alert(
    redis_server: RedisServer, kind: str
) -> None:
    way = RecordingTransport()
    with contextlib.ExitStack() as stack:
        handed_in = HANDED_IN[kind](redis_server)
        if not isinstance(handed_in, str):
            stack.enter_context(contextlib.closing(handed_in))
        target = stack.enter_context(handler(handed_in, way))
        redis_server.pause()
        stack.callback(redis_server.resume)
        log_to(target, *"aab")
        assert target.flush(5)
    assert repeats(way) == [0, 0, 1]


def test_on_a_cluster_processes_agree_as_on_one_server(redis_cluster: RedisCluster) -> None:
    node = redis_cluster.nodes[0]
    first, second = (
        SharedStore(
            f"redis+cluster://{node.host}:{node.port}", destination="slack:x", window=300, clock=SYSTEM_CLOCK
        )
        for _ in range(2)
    )
    kinds = [f"f{number}" for number in range(20)]  # spread over the nodes
    assert [first.admit(kind) for kind in kinds] == [0] * 20
    assert [second.admit(kind) for kind in kinds] == [-1] * 20
    assert [first.collect(kind, 1, moment="close") for kind in kinds] == [0] * 20
    assert [second.collect(kind, 2, moment="close") for kind in kinds] == [3] * 20
    first.close()
    second.close()


def test_each_kind_is_handed_over_once_at_the_end(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    collect = SharedStore.collect

    def counted(store: SharedStore, fingerprint: str, number: int, **options: Any) -> int | None:
        asked.append(fingerprint)
        return collect(store, fingerprint, number, **options)

    monkeypatch.setattr(SharedStore, "collect", counted)
    with handler(redis_server.url, RecordingTransport()) as target:
        log_to(target, *"aab")
    assert len(asked) == len(set(asked)) == 2


def test_without_a_window_there_is_nothing_to_agree_on() -> None:
    way = RecordingTransport()
    with handler("redis://localhost:1/0", way, dedup_window=0) as target:
        log_to(target, *"aaa")
        target.flush(5)
    assert repeats(way) == [0, 0, 0]
