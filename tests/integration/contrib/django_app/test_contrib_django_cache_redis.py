"""Django's cache on a real Redis: what several processes share, and what it does in an outage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import caches
from django.core.management import call_command
from django.db import transaction
from django.http import HttpResponse
from django.views.decorators.cache import cache_page

from contrib_django_site import project
from mks_hardening.contrib.django_app import invalidate_on_commit
from mks_hardening.contrib.django_app.cache import HardenedCache
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.settings import HardeningSettings
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
