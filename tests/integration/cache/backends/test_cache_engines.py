"""One suite for every engine and every set-up.

Redis and Valkey; one server, Sentinel with a kill, Cluster with a kill and with slots on the move.

``REDIS_ENGINES`` adds programs, for example other versions: ``REDIS_ENGINES=/opt/redis-7/bin/redis-server``.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mks_hardening.cache import RedisCache
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.testing import CacheContract
from testbed import services
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster, SentinelGroup
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

ENGINES = ["redis-server", "valkey-server", *os.environ.get("REDIS_ENGINES", "").split()]


class Place(NamedTuple):
    """A set-up.

    Attributes:
        url: its URL.
        disturb: disturbs it, and returns when everything is served again.
        may_lose: how many acknowledged writes a promoted replica may lack, as replication is asynchronous.
    """

    url: str
    disturb: Callable[[], object]
    may_lose: int = 0


def standalone(folder: Path, engine: str, stack: ExitStack) -> Place:
    server = RedisServer(folder, engine=engine)
    stack.callback(server.close)
    server.start()
    return Place(server.url, lambda: None)


def sentinel(folder: Path, engine: str, stack: ExitStack) -> Place:
    group = SentinelGroup(folder, engine)
    stack.callback(group.close)
    group.start()
    hosts = ",".join(f"{host}:{port}" for host, port in group.addresses)
    return Place(f"redis+sentinel://{hosts}/{group.name}/0", group.fail_over, may_lose=2)


def cluster(folder: Path, engine: str, stack: ExitStack) -> Place:
    group = RedisCluster(folder, engine)
    stack.callback(group.close)
    group.start()
    return Place(cluster_url(group), lambda: group.fail_over("mks:v:{=k0}"), may_lose=2)


def resharded(folder: Path, engine: str, stack: ExitStack) -> Place:
    group = RedisCluster(folder, engine)
    stack.callback(group.close)
    group.start()

    def reshard() -> None:
        for key in ("k0", "k1", "t", "slow", "lock"):
            with group.resharding(f"mks:v:{{={key}}}"):
                time.sleep(0.05)  # requests meet ASK, TRYAGAIN and MOVED

    return Place(cluster_url(group), reshard)


def cluster_url(group: RedisCluster) -> str:
    return group.url.replace("redis://", "redis+cluster://").removesuffix("/0")


SLOW = pytest.mark.slow
PLACES = [
    pytest.param(standalone, id="one server"),
    pytest.param(sentinel, id="sentinel", marks=SLOW),
    pytest.param(cluster, id="cluster", marks=SLOW),
    pytest.param(resharded, id="resharded", marks=SLOW),
]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "redis-server":
        return services.program(name)
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *services.SYSTEM_FOLDERS]))
    return found or pytest.skip(f"{name} is not installed")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield request.param(tmp_path, engine, stack)


@pytest.fixture
def caches(place: Place) -> Iterator[tuple[RedisCache, RedisCache]]:
    """Two caches that meet in the server only, as those of two processes do."""
    with RedisCache(place.url, store_budget=1) as one, RedisCache(place.url, store_budget=1) as other:
        yield one, other


def test_the_contract_holds(place: Place) -> None:
    class OfPlace(CacheContract):
        def make_cache(self, namespace: str, *, clock: Any) -> RedisCache:
            return RedisCache(place.url, namespace=namespace, jitter=0, clock=clock, store_budget=5)

    contract = OfPlace()
    for name in dir(contract):
        if name.startswith("test_"):
            getattr(contract, name)()


class Work:
    """Runs functions in threads, again and again; the first exception ends it and is raised at the end."""

    def __init__(self, *functions: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self.errors: list[BaseException] = []
        self.turns = dict.fromkeys(functions, 0)
        self._threads = [threading.Thread(target=self._run, args=(function,)) for function in functions]

    def _run(self, function: Callable[[], object]) -> None:
        while not self._stop.wait(0.002):
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised again at the end
                self.errors.append(error)
                return
            self.turns[function] += 1

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.errors or min(self.turns.values()) > 5, timeout=30, what="all at work")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)
        if self.errors:
            raise self.errors[0]


def test_nobody_notices_a_disturbance_but_by_misses(
    place: Place, caches: tuple[RedisCache, RedisCache]
) -> None:
    one, other = caches

    def replace() -> None:
        with suppress(BackendUnavailableError):  # raised, because a lock depends on it
            one.replace("lock", lambda _present: (True, 60.0), wait=1.0)

    with Work(
        lambda: one.get_or_compute("k0", lambda: "computed", tags=["t"]),
        lambda: other.get_or_compute("k1", lambda: "computed", tags=["t", "u"]),
        lambda: other.get_or_compute_many(["k0", "k1", "k2"], lambda keys: dict.fromkeys(keys, "computed")),
        lambda: (one.set("k2", "set", tags=["u"]), other.get("k2"), other.delete("k2")),
        lambda: one.invalidate_tags("t"),
        lambda: (time.sleep(0.05), other.clear()),
        lambda: (time.sleep(0.05), other.delete_pattern("k*")),
        replace,
    ):
        place.disturb()
        wait_until(lambda: one.set("after", 1) and other.get("after") == 1, timeout=20, what="a hit")
    wait_until(
        lambda: one.stats().pending_invalidations == other.stats().pending_invalidations == 0,
        timeout=20,
        what="invalidations that are sent",
    )
    assert one.set("last", 1, tags=["t"])
    assert other.invalidate_tags("t")
    assert one.get("last") is None
    assert one.set("last", 2)
    other.clear()
    assert one.get("last") is None


def test_an_invalidation_that_was_acknowledged_holds(
    place: Place, caches: tuple[RedisCache, RedisCache]
) -> None:
    """A reader never sees what was true before an invalidation that returned true."""
    one, other = caches
    truth = [0]
    seen: list[tuple[int, int]] = []

    def change() -> None:
        value = truth[0] + 1
        truth[0] = value
        if one.invalidate_tags("t") and one.delete("k0") >= 0:
            acknowledged[0] = value

    acknowledged = [0]

    def read() -> None:
        least = acknowledged[0]
        found = other.get_or_compute("k0", lambda: truth[0], tags=["t"], ttl=600)
        if found < least - place.may_lose:
            seen.append((found, least))

    with Work(change, read, read):
        place.disturb()
        wait_until(lambda: one.set("after", 1) and other.get("after") == 1, timeout=20, what="a hit")
        at_least = truth[0] + 20
        wait_until(lambda: truth[0] > at_least, timeout=20, what="changes after the disturbance")
    assert seen == []


def test_waiters_are_woken_or_look_for_themselves(
    place: Place, caches: tuple[RedisCache, RedisCache]
) -> None:
    """The computation of one process goes on while its waiters elsewhere lose their server."""
    one, other = caches
    began, may_end = threading.Event(), threading.Event()
    computed: list[str] = []

    def compute(name: str) -> str:
        began.set()
        assert may_end.wait(60)
        computed.append(name)
        return name

    found: list[str] = []
    holder = threading.Thread(
        target=lambda: found.append(one.get_or_compute("slow", lambda: compute("holder"), compute_wait=30))
    )
    waiters = [
        threading.Thread(
            target=lambda: found.append(
                other.get_or_compute("slow", lambda: compute("waiter"), compute_wait=30)
            )
        )
        for _ in range(5)
    ]
    holder.start()
    assert began.wait(30)
    for waiter in waiters:
        waiter.start()
    time.sleep(0.3)  # until they wait in the server
    place.disturb()
    may_end.set()
    for thread in (holder, *waiters):
        thread.join(60)
    assert len(found) == 6
    # A failover may lose the lease: then one waiter computes as well, in place of all the others.
    assert set(found) <= {"holder", "waiter"}
    assert len(computed) <= 2
    wait_until(lambda: other.get("slow") in found or other.set("slow", found[0]), timeout=20, what="a hit")
