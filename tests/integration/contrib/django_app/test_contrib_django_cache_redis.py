"""Django's cache on a real Redis: what several processes share, and what it does in an outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.core.cache import caches
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.http import HttpResponse
from django.views.decorators.cache import cache_page

from contrib_django_site import project
from mks_hardening.cache import cached
from mks_hardening.contrib.django_app import invalidate_on_commit
from mks_hardening.contrib.django_app.cache import HardenedCache
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.settings import HardeningSettings
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster, SentinelGroup
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

Group = apps.get_model("auth.Group")
BACKEND = "mks_hardening.contrib.django_app.cache.HardenedCache"


@pytest.fixture
def site(make_redis: Callable[..., RedisServer]) -> Iterator[Any]:
    shared = {"BACKEND": BACKEND, "LOCATION": make_redis().url, "KEY_PREFIX": "shop"}
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development", "MKS_STORE_BUDGET": "5s"})
    with project(CACHES={"default": shared}, MKS_HARDENING={"settings": settings}) as found:
        caches["default"].clear()
        yield found


def in_threads(count: int, work: Any) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_counting_and_adding_are_atomic(site: Any) -> None:
    cache = caches["default"]
    cache.set("n", 0, timeout=100)
    added: list[bool] = []

    def work() -> None:
        own = caches["default"]
        for _ in range(10):
            own.incr("n")
        added.append(own.add("once", 1))

    in_threads(4, work)
    assert (cache.get("n"), sorted(added)) == (40, [False, False, False, True])
    assert 0 < cache.ttl("n") <= 100


def test_a_lock_excludes_and_ends(site: Any) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(5):
            with caches["default"].lock("job", sleep=0.002):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    in_threads(4, work)
    assert (len(most), max(most)) == (20, 1)
    short = caches["default"].lock("short", timeout=0.05)
    assert short.acquire()
    with caches["default"].lock("short", sleep=0.01, blocking_timeout=30):
        assert not short.release()


def test_keys_and_patterns(site: Any) -> None:
    cache = caches["default"]
    assert cache.set_many({f"a{number}": number for number in range(1100)}) == []
    cache.set("b", 1)
    assert len(cache.keys("a*")) == 1100
    assert cache.delete_pattern("a*") == 1100
    assert cache.keys() == ["b"]


def test_pages_and_instances_are_shared(site: Any) -> None:
    call_command("migrate", verbosity=0)
    made: list[int] = []

    @cache_page(60)
    def view(_request: Any) -> HttpResponse:
        made.append(1)
        return HttpResponse("<b>技術</b>")

    assert [site.visit(view, cookies={}).body.decode() for _ in range(3)] == ["<b>技術</b>"] * 3
    assert len(made) == 1
    group = Group.objects.create(name="staff")
    try:
        cache = caches["default"]
        cache.set("groups", Group.objects.filter(name="staff"))
        with transaction.atomic():
            invalidate_on_commit("groups", cache=cache)
            assert cache.get("groups") is None
            assert cache.inner.exists(cache.make_key("other")) is False
        assert cache.keys("groups") == []
        cache.set("groups", [group])
        assert cache.get("groups") == [group]
    finally:
        group.delete()


def test_nothing_raises_without_redis_but_a_lock() -> None:
    with project():
        cache = HardenedCache("redis://127.0.0.1:1/0", {})
        assert (cache.get("a"), cache.add("a", 1), cache.touch("a"), cache.ttl("a")) == (
            None,
            False,
            False,
            0,
        )
        assert (cache.keys(), cache.delete_pattern("*"), cache.set_many({"a": 1})) == ([], 0, ["a"])
        with pytest.raises(ValueError, match="not found"):
            cache.incr("a")
        with pytest.raises(BackendUnavailableError), cache.lock("job"):
            pass


# --- crossings: PostgreSQL, Sentinel, Cluster


@pytest.fixture
def on_postgres(postgres_url: str) -> Iterator[str]:
    """The alias of a PostgreSQL database with a table ``prices``."""
    parts = urlsplit(postgres_url)
    connections.databases["shop"] = {
        **connections.databases["default"],
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }
    try:
        with connections["shop"].cursor() as cursor:
            cursor.execute("CREATE TABLE prices (item text PRIMARY KEY, price int)")
            cursor.execute("INSERT INTO prices VALUES ('rebar', 1)")
        yield "shop"
    finally:
        connections["shop"].close()
        del connections["shop"]
        del connections.databases["shop"]


def test_nested_transactions_on_postgresql_invalidate_what_was_committed(site: Any, on_postgres: str) -> None:
    """Through another connection, readers see at any time what is committed; the cache must agree with them."""
    cache = caches["default"]

    def stored() -> int:
        with connections[on_postgres].cursor() as cursor:
            cursor.execute("SELECT price FROM prices WHERE item = 'rebar'")
            return int(cursor.fetchone()[0])

    @cached(cache=cache.inner, key_prefix="price", tags=["prices"])
    def price() -> int:
        return stored()

    def change(to: int) -> None:
        with connections[on_postgres].cursor() as cursor:
            cursor.execute("UPDATE prices SET price = %s WHERE item = 'rebar'", [to])
        invalidate_on_commit(cache=cache, tags=["prices"], using=on_postgres)

    def elsewhere() -> int:
        found: list[int] = []

        def read() -> None:
            try:
                found.append(price())
            finally:
                connections.close_all()

        in_threads(1, read)
        return found[0]

    assert (price(), elsewhere()) == (1, 1)
    with transaction.atomic(using=on_postgres):
        change(2)
        with transaction.atomic(using=on_postgres):
            change(3)
            assert (price(), elsewhere()) == (3, 1)
        with suppress(ZeroDivisionError), transaction.atomic(using=on_postgres):
            change(4)
            assert (price(), elsewhere()) == (4, 1)
            raise ZeroDivisionError
        assert (price(), elsewhere()) == (3, 1)
        with transaction.atomic(using=on_postgres, savepoint=False):
            change(5)
        assert (price(), elsewhere()) == (5, 1)
    assert (price(), elsewhere()) == (5, 5)
    with suppress(ZeroDivisionError), transaction.atomic(using=on_postgres):
        with transaction.atomic(using=on_postgres):
            change(6)
        assert (price(), elsewhere()) == (6, 5)
        raise ZeroDivisionError
    assert (price(), elsewhere()) == (5, 5)
    with pytest.raises(IntegrityError), transaction.atomic(using=on_postgres):
        change(7)
        with transaction.atomic(using=on_postgres), connections[on_postgres].cursor() as cursor:
            cursor.execute("INSERT INTO prices VALUES ('rebar', 8)")
    assert (price(), elsewhere()) == (5, 5)
    change(9)  # without a transaction
    assert (price(), elsewhere()) == (9, 9)
    assert cache.inner.stats().hits > 0


LONGEST = 4.0
"""Seconds after which a lock ends by itself: one whose release met the disturbance, or whose holder stood still."""


def exclusively(url: str, disturb: Callable[[], object]) -> tuple[int, int]:
    """Let threads take a lock during a disturbance; return how often they had it, and the most at once."""
    with project():
        cache = HardenedCache(url, {"OPTIONS": {"store_budget": 5}})
        inside, most, turns = dict[int, float](), [0], [0]
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.002):
                held, began = cache.lock("job", timeout=LONGEST), time.monotonic()
                with suppress(BackendUnavailableError):
                    if held.acquire(blocking=False):
                        now = time.monotonic()
                        # Redis ends the lock no sooner. On a busy machine a thread may stand still for longer: then
                        # it is still inside, but its lock excludes nobody any more.
                        inside[threading.get_ident()] = began + LONGEST
                        most[0] = max(most[0], sum(end > now for end in list(inside.values())))
                        stop.wait(0.002)
                        del inside[threading.get_ident()]
                        turns[0] += 1
                        held.release()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: turns[0] > 20, timeout=90, what="holders before the disturbance")
            disturb()
            before = turns[0]
            cache.inner.delete("none")
            wait_until(lambda: turns[0] > before + 20, timeout=90, what="holders after the disturbance")
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        cache.inner.close()
        return turns[0], most[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lock_goes_on_after_a_failover(redis_sentinels: SentinelGroup) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in redis_sentinels.addresses)
    url = f"redis+sentinel://{hosts}/{redis_sentinels.name}/0"
    turns, most = exclusively(url, redis_sentinels.fail_over)
    assert turns > 40
    assert most == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lock_excludes_while_its_slot_moves(redis_cluster: RedisCluster) -> None:
    url = redis_cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")

    def reshard() -> None:
        with project():
            name = HardenedCache(url, {}).make_key("mks-lock:job")
        for _ in range(3):
            with redis_cluster.resharding(f"mks:v:{{={name}}}"):
                threading.Event().wait(0.1)

    turns, most = exclusively(url, reshard)
    assert turns > 40
    assert most == 1
