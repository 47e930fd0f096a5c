"""Copies in memory that Redis keeps current: foreign changes, broken channels, forks, Sentinel."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mks_hardening._core.missing import MISSING
from mks_hardening.cache import MemoryCache, RedisCache, TieredCache
from mks_hardening.testing import CacheContract, FrozenClock, call_wsgi
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware
from testbed.certificates import Certificates
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.redis_groups import SentinelGroup
from testbed.redis_server import RedisServer
from testbed.run_python import run_python

pytestmark = pytest.mark.redis

CHANGES: dict[str, Callable[[RedisCache], object]] = {
    "set": lambda far: far.set("k", "new", tags=["t"]),
    "delete": lambda far: far.delete("k"),
    "tag": lambda far: far.invalidate_tags("t"),
    "pattern": lambda far: far.delete_pattern("k*"),
    "clear": lambda far: far.clear(),
    "refresh": lambda far: far.get_or_compute("k", lambda: "new") and far.delete("k"),
}

GEVENT = """
from gevent import monkey
monkey.patch_all()
import json, sys, gevent
from mks_hardening.cache import MemoryCache, RedisCache, TieredCache

cache = TieredCache(MemoryCache(), RedisCache(sys.argv[1], store_budget=5), l1_ttl=3600, client_tracking=True)
far = RedisCache(sys.argv[1], store_budget=5)
report = []
def copied(value):
    with gevent.Timeout(20):
        while cache.peek("k") != value:
            cache.get("k")
            gevent.sleep(0.001)
    report.append(value)
far.set("k", "old")
copied("old")
far.set("k", "new")
copied("new")
gevent.sleep(2)  # its greenlet keeps the channel while nobody reads
report.append(cache.peek("k"))
cache.close()
far.close()
print(json.dumps(report))
"""


class TestTracked(CacheContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> Iterator[None]:
        self.url = redis_server.url
        with ExitStack() as self.stack:
            yield

    def make_cache(self, namespace: str, *, clock: FrozenClock) -> TieredCache:
        far = RedisCache(self.url, namespace=namespace, jitter=0, clock=clock, store_budget=2)
        cache = TieredCache(MemoryCache(clock=clock, jitter=0), far, client_tracking=True)
        return self.stack.enter_context(cache)


@pytest.fixture
def tracked() -> Iterator[Callable[[str], TieredCache]]:
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> TieredCache:
            far = RedisCache(url, jitter=0, **{"store_budget": 5, **options})
            cache = TieredCache(MemoryCache(jitter=0), far, l1_ttl=3600, client_tracking=True)
            return stack.enter_context(cache)

        yield make


@pytest.fixture
def far(redis_server: RedisServer) -> Iterator[RedisCache]:
    """Another process, as far as Redis is concerned."""
    with RedisCache(redis_server.url, jitter=0, store_budget=5) as cache:
        yield cache


def is_copied(cache: TieredCache, key: str = "k") -> bool:
    """Return whether a value is in memory, after reading it once."""
    cache.get(key)
    return cache.peek(key) is not MISSING


def until_copied(cache: TieredCache, key: str = "k") -> None:
    wait_until(lambda: is_copied(cache, key), what=f"a copy of {key}")


def until_dropped(cache: TieredCache, key: str = "k") -> None:
    wait_until(lambda: cache.peek(key) is MISSING, what=f"the end of the copy of {key}")


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_elsewhere_drops_the_copy(
    tracked: Any, far: RedisCache, redis_server: RedisServer, change: Callable[[RedisCache], object]
) -> None:
    cache = tracked(redis_server.url)
    far.set("k", "old", tags=["t"])
    far.set("other", 1)
    # A copy of a tagged value needs the tag to be known here: by a computation, as with a cached function.
    wait_until(
        lambda: cache.get_or_compute("k", lambda: "x", tags=["t"]) == "old" and is_copied(cache),
        what="a copy",
    )
    change(far)
    until_dropped(cache)
    assert cache.get("k") == far.get("k") != "old"


def test_a_copy_stays_while_other_keys_change(
    tracked: Any, far: RedisCache, redis_server: RedisServer
) -> None:
    cache = tracked(redis_server.url)
    far.set("k", "kept", tags=["t"])
    wait_until(
        lambda: cache.get_or_compute("k", lambda: "x", tags=["t"]) == "kept" and is_copied(cache),
        what="a copy",
    )
    for number in range(20):
        far.set(f"other{number}", 1, tags=["t", "u"])
        far.get_or_compute(f"computed{number}", lambda: 2, tags=["t"])
    far.delete("other1")
    far.invalidate_tags("u")
    with RedisCache(redis_server.url, namespace="another", store_budget=5) as another:
        another.set("k", 1)
        another.clear()
    marker = far.set("marker", 1)
    assert marker
    until_copied(cache, "marker")
    far.delete("marker")
    until_dropped(cache, "marker")  # so everything before has arrived
    assert cache.peek("k") == "kept"


def test_an_emptied_server_and_an_expired_value_leave_no_copy(
    tracked: Any, far: RedisCache, redis_server: RedisServer
) -> None:
    cache = tracked(redis_server.url)
    far.set("k", 1)
    until_copied(cache)
    redis_server.command("FLUSHALL")
    until_dropped(cache)
    # A process may write for 20 ms under the generation that was there before, which is lost as well.
    wait_until(lambda: far.set("k", 2) and is_copied(cache), what="a copy of what follows")
    redis_server.command("PEXPIRE", f"{far.namespace}:v:{{=k}}", 1)
    wait_until(lambda: cache.get("k") is None, what="the end of an expired value")


def test_strange_names_under_the_prefix_break_nothing(
    tracked: Any, far: RedisCache, redis_server: RedisServer
) -> None:
    cache = tracked(redis_server.url)
    far.set("k", 1)
    until_copied(cache)
    prefix = f"{far.namespace}:v:{{=".encode()
    for name in (b"\xff}", b"", b"a" * 5000):
        redis_server.command("SET", prefix + name, "x")
    for key in ("}", "{a}", "鉄筋", "\ud800"):
        far.set(key, 1)
        until_copied(cache, key)
        far.delete(key)
        until_dropped(cache, key)
    assert cache.peek("k") == 1


@pytest.mark.parametrize("way", ["killed", "stopped", "proxy"])
def test_a_broken_channel_drops_every_copy_and_another_one_follows(  # noqa: PLR0917 - fixtures
    tracked: Any,
    far: RedisCache,
    redis_server: RedisServer,
    fault_proxy: FaultProxy,
    way: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = tracked(fault_proxy.through(redis_server.url))
    for key in "abk":
        far.set(key, "old")
        until_copied(cache, key)
    if way == "killed":
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    elif way == "stopped":
        redis_server.kill()
    else:
        fault_proxy.refuse()
    wait_until(lambda: all(cache.peek(key) is MISSING for key in "abk"), what="the end of all copies")
    if way == "stopped":
        redis_server.start()
    if way == "proxy":  # what happens in the meantime is never reported
        far.set("k", "new")
        fault_proxy.heal()
    wait_until(lambda: far.set("a", "later"), what="an available server")
    until_copied(cache, "a")
    assert cache.get("a") == "later"
    assert cache.get("k") == far.get("k")
    said = [record.message for record in caplog.records if "copies" in record.message]
    assert len(said) <= 2


def test_a_silent_server_leaves_no_copy_served(
    tracked: Any, far: RedisCache, redis_server: RedisServer, fault_proxy: FaultProxy
) -> None:
    """A connection that delivers nothing any more looks open."""
    cache = tracked(fault_proxy.through(redis_server.url), store_budget=0.3)
    far.set("k", "old")
    until_copied(cache)
    fault_proxy.mode = "black_hole"
    far.set("k", "new")
    until_dropped(cache)
    assert cache.get("k") is None
    fault_proxy.heal()
    until_copied(cache)
    assert cache.get("k") == "new"


def test_a_user_without_the_right_gets_no_copies_and_one_warning(
    tracked: Any, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.command("ACL", "SETUSER", "app", "on", ">secret-word", "~*", "+@all", "-client")
    cache = tracked(redis_server.url_for(user="app", password="secret-word"))
    cache.set("k", 1)
    wait_until(
        lambda: not is_copied(cache) and "copies" in caplog.text, what="a warning that there are no copies"
    )
    assert cache.get("k") == 1
    assert not is_copied(cache)
    assert "NOPERM" in caplog.text
    assert "secret-word" not in caplog.text
    redis_server.command("ACL", "SETUSER", "app", "+client")
    until_copied(cache)


def test_an_invalidation_during_a_read_leaves_no_old_copy(
    tracked: Any, far: RedisCache, redis_server: RedisServer
) -> None:
    """Whatever the order in which threads read, write and hear of it, they agree in the end."""
    caches = [tracked(redis_server.url) for _ in range(2)]
    keys = ["a", "b", "c"]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(150):
            key, cache = chance.choice(keys), chance.choice(caches)
            match chance.randrange(6):
                case 0:
                    cache.set(key, (seed, number))
                case 1:
                    cache.delete(key)
                case _:
                    cache.get(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = far.get_many(keys)
    for cache in caches:
        wait_until(lambda: cache.get_many(keys) == expected, what="agreement")  # noqa: B023 - runs at once


def test_the_same_on_an_event_loop(tracked: Any, far: RedisCache, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        cache = tracked(redis_server.url)
        for value in ("old", "new"):
            far.set("k", value)
            async with asyncio.timeout(20):
                while cache.peek("k") != value:
                    await cache.aget("k")
        await cache.aclose()

    asyncio.run(scenario())


def test_a_forked_child_has_a_channel_of_its_own(
    tracked: Any, far: RedisCache, redis_server: RedisServer
) -> None:
    cache = tracked(redis_server.url)
    far.set("k", "old")
    until_copied(cache)
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    child = os.fork()
    if child == 0:
        try:
            theirs.sendall(
                b"y" if cache.peek("k") is MISSING else b"n"
            )  # nothing before its own channel is open
            until_copied(cache)
            theirs.sendall(b"r")
            theirs.recv(1)
            until_dropped(cache)
            theirs.sendall(cache.get("k").encode())
        finally:
            os._exit(0)
    assert ours.recv(1) == b"y"
    assert ours.recv(1) == b"r"
    assert is_copied(cache)  # the parent's channel is as it was
    with redis_server.client() as client:
        assert sum("B" in row["flags"] for row in client.client_list()) == 2
    far.set("k", "new")
    until_dropped(cache)
    ours.sendall(b"g")
    assert ours.recv(10) == b"new"
    os.waitpid(child, 0)
    assert cache.get("k") == "new"
    for end in (ours, theirs):
        end.close()


def test_pages_come_from_memory_until_a_tag_is_invalidated_elsewhere(
    tracked: Any, far: RedisCache, redis_server: RedisServer
) -> None:
    cache, made = tracked(redis_server.url), count(1)

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % next(made)]

    rules = [CacheRule("/news", ttl=60, tags=("news",))]
    pages = ResponseCacheMiddleware(application, cache=cache, rules=rules)

    def is_in_memory() -> bool:
        before = redis_server.command_count("mget"), redis_server.command_count("get")
        call_wsgi(pages, "/news")
        return (redis_server.command_count("mget"), redis_server.command_count("get")) == before

    wait_until(is_in_memory, what="a page in memory")
    page = call_wsgi(pages, "/news").body
    far.invalidate_tags("news")
    wait_until(lambda: call_wsgi(pages, "/news").body != page, what="a new page")
    wait_until(is_in_memory, what="the new page in memory")


@pytest.mark.slow
def test_under_gevent_reports_arrive_while_other_greenlets_work(redis_server: RedisServer) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    report = run_python(GEVENT, redis_server.url, timeout=100).json()
    assert report == ["old", "new", "new"]


@pytest.mark.parametrize("whole", [True, False], ids=["cache", "shared cache alone"])
def test_a_closed_cache_leaves_neither_connection_nor_thread(
    far: RedisCache, redis_server: RedisServer, whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shared = RedisCache(redis_server.url, store_budget=5)
    cache = TieredCache(MemoryCache(), shared, l1_ttl=3600, client_tracking=True)
    far.set("k", 1)
    until_copied(cache)
    if whole:
        cache.close()
        cache.close()
    else:
        shared.close()
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until_dropped(cache)
    assert cache.peek("k") is MISSING
    wait_until(
        lambda: not any(thread.name == "mks-cache-tracking" for thread in threading.enumerate()),
        what="the end of the thread",
    )
    with redis_server.client() as client:
        assert not any("B" in row["flags"] for row in client.client_list())
    assert not caplog.records
    cache.close()


def test_over_tls_with_a_password_in_another_database(
    tracked: Any, make_redis: Callable[..., RedisServer], certificates: Certificates
) -> None:
    server = make_redis(certificates=certificates, password="a-long-password")
    url = f"{server.url_for(password=server.password, database=3)}?ca_file={certificates.ca_file}"
    cache = tracked(url)
    with RedisCache(url, store_budget=5) as far:
        far.set("k", "old")
        until_copied(cache)
        far.set("k", "new")
        until_dropped(cache)
        assert cache.get("k") == "new"


def test_over_a_socket_file(tracked: Any, make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    server = make_redis(unix_socket=True)
    cache = tracked(server.unix_url)
    cache.set("k", "old")
    until_copied(cache)
    with RedisCache(server.url, store_budget=5) as far:
        far.set("k", "new")
    until_dropped(cache)


@pytest.mark.slow
def test_the_channel_follows_a_failover(tracked: Any, redis_sentinels: SentinelGroup) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in redis_sentinels.addresses)
    url = f"redis+sentinel://{hosts}/{redis_sentinels.name}/0"
    cache = tracked(url)
    with RedisCache(url, store_budget=5) as far:
        wait_until(lambda: far.set("k", "old"), what="a write")
        until_copied(cache)
        redis_sentinels.fail_over()
        until_dropped(cache)
        wait_until(lambda: far.set("k", "new"), timeout=60, what="a new primary")
        wait_until(lambda: is_copied(cache), timeout=60, what="a copy from the new primary")
        assert cache.get("k") == "new"
        far.set("k", "newer")
        until_dropped(cache)
        assert cache.get("k") == "newer"
