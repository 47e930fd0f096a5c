"""The Redis cache against a real server: the contract, what others may read and write, and outages."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mks_hardening._core.resilience.budget import request_budget
from mks_hardening.cache import MemoryCache, RedisCache, TieredCache
from mks_hardening.exceptions import ConfigurationError, EncodeError
from mks_hardening.testing import CacheContract, FrozenClock
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

KEYS = ["0123456789abcdef-one"]

pytestmark = pytest.mark.redis


class _OnRedis(CacheContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> Iterator[None]:
        self.url = redis_server.url
        with ExitStack() as self.stack:
            yield


class TestRedisCache(_OnRedis):
    def make_cache(self, namespace: str, *, clock: FrozenClock) -> RedisCache:
        return self.stack.enter_context(
            RedisCache(self.url, namespace=namespace, jitter=0, clock=clock, store_budget=2)
        )


class TestSignedRedisCache(_OnRedis):
    def make_cache(self, namespace: str, *, clock: FrozenClock) -> RedisCache:
        return self.stack.enter_context(
            RedisCache(
                self.url, namespace=namespace, signing_keys=KEYS, jitter=0, clock=clock, store_budget=2
            )
        )


class TestTieredRedis(_OnRedis):
    def make_cache(self, namespace: str, *, clock: FrozenClock) -> TieredCache:
        far = RedisCache(self.url, namespace=namespace, jitter=0, clock=clock, store_budget=2)
        return self.stack.enter_context(TieredCache(MemoryCache(clock=clock, jitter=0), far))


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            RedisCache(redis_server.url, **{"store_budget": 2, "signing_keys": KEYS, **options})
        )


def test_two_caches_share_values_and_invalidations(make: Any) -> None:
    one, other = make(), make()
    one.set("k", {"a": 1}, tags=["t"])
    assert other.get("k") == {"a": 1}
    other.invalidate_tags("t")
    assert one.get("k") is None


def test_a_hit_is_one_round_trip(make: Any, redis_server: RedisServer) -> None:
    cache = make()
    cache.set("k", 1, tags=["a", "b"])
    before = {
        name: redis_server.command_count(name) for name in ("mget", "get", "set", "evalsha", "eval", "exists")
    }
    assert cache.get_or_compute("k", lambda: 2, tags=["a", "b"]) == 1
    after = {name: redis_server.command_count(name) for name in before}
    assert after == {**before, "mget": before["mget"] + 1}


def test_values_end_on_the_server_too(make: Any, redis_server: RedisServer) -> None:
    make().set("k", 1, ttl=100)
    assert 89_000 < redis_server.command("PTTL", "mks:v:{=k}") <= 100_000


def test_tampered_moved_and_planted_bytes_are_a_miss_and_removed(
    make: Any, redis_server: RedisServer
) -> None:
    cache = make()
    cache.set("k", "value")
    good = redis_server.command("GET", "mks:v:{=k}")
    planted = {
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[:-1],
        "another key": None,
        "unsigned": good[:2] + b"\0" + good[35:],
        "pickle": b"cos\nsystem\n(S'true'\ntR.",
        "empty": b"",
        "text": b"17",
    }
    for name, data in planted.items():
        key = "other" if name == "another key" else "k"
        redis_server.command("SET", f"mks:v:{{={key}}}", good if data is None else data)
        assert cache.get(key) is None, name
        assert redis_server.command("EXISTS", f"mks:v:{{={key}}}") == 0, name


def test_bytes_of_another_namespace_or_key_holder_are_not_read(make: Any, redis_server: RedisServer) -> None:
    make(namespace="one").set("k", 1)
    redis_server.command("COPY", "one:v:{=k}", "two:v:{=k}")
    assert make(namespace="two").get("k") is None
    make(signing_keys=None).set("k", "unsigned")
    assert make().get("k") is None


def test_keys_can_be_rotated(make: Any) -> None:
    make().set("k", 1)
    new_key = "fedcba9876543210-two"
    rotated = make(signing_keys=[new_key, *KEYS])
    assert rotated.get("k") == 1
    rotated.set("k", 2)
    assert make(signing_keys=[new_key]).get("k") == 2
    assert make(signing_keys=["another-key-of-16-bytes"]).get("k") is None


MANY = 2_097_153  # one item more than an entry may have


def test_an_entry_of_too_many_items_is_a_miss_and_removed(make: Any, redis_server: RedisServer) -> None:
    cache = make(signing_keys=None)
    data = b"\x01m\xdd" + MANY.to_bytes(4, "big") + b"\xc0" * MANY
    redis_server.command("SET", "mks:v:{=k}", b"\xc1\x02\x00" + b"\x41" * 16 + b"\x00\x00" + data)
    assert cache.get("k") is None
    assert redis_server.command("EXISTS", "mks:v:{=k}") == 0


@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_value_of_too_many_items_is_computed_and_not_kept(make: Any, keys: Any) -> None:
    cache = make(signing_keys=keys)
    value = [None] * MANY
    with pytest.raises(EncodeError, match="too many items"):
        cache.set("k", value)
    assert cache.get_or_compute("k", lambda: value) is value
    assert cache.get("k") is None


OTHER_LAYOUTS: dict[str, tuple[bytes, bool]] = {
    "a later version": (b"\xc1\x63\x00whatever", True),
    "a form to come": (b"\xc1\x02\x08unknown", True),
    "signed, where nothing is": (b"\xc1\x02\x80" + bytes(60), True),
    "a later value in this layout": (b"\xc1\x02\x00" + b"\x41" * 16 + b"\x00\x00" + b"\x63mvalue", True),
    "an earlier version": (b"\xc1\x01\x00whatever", False),
    "what was stored before there were versions": (b"\x01m\x94\x01\xcb" + b"\x41" * 8, False),
}


@pytest.mark.parametrize("layout", OTHER_LAYOUTS, ids=OTHER_LAYOUTS)
def test_old_and_new_processes_work_side_by_side(make: Any, redis_server: RedisServer, layout: str) -> None:
    data, stays = OTHER_LAYOUTS[layout]
    cache = make(signing_keys=None)
    redis_server.command("SET", "mks:v:{=k}", data)
    assert cache.get("k") is None
    assert redis_server.command("EXISTS", "mks:v:{=k}") == int(stays)
    assert cache.get_or_compute("k", lambda: "mine") == "mine"
    assert cache.get("k") == "mine"


def test_keys_and_tags_that_are_no_utf8(make: Any) -> None:
    cache = make()
    for key in ("\ud800", "a\udcff", "\u00e9"):
        assert cache.get_or_compute(key, lambda key=key: key.encode("utf-8", "surrogatepass"), tags=[key])
        assert cache.get(key) == key.encode("utf-8", "surrogatepass")
        assert cache.invalidate_tags(key)
        assert cache.get(key) is None


def test_flushed_tag_versions_never_bring_old_values_back(make: Any, redis_server: RedisServer) -> None:
    cache = make()
    cache.set("k", 1, tags=["t"])
    redis_server.command("DEL", "mks:t:{=t}")
    cache.set("other", 2, tags=["t"])
    assert cache.get("k") is None


def test_clear_leaves_everything_else(make: Any, redis_server: RedisServer) -> None:
    redis_server.command("SET", "foreign", "1")
    make(namespace="mks2").set("k", 1)
    cache = make()
    cache.set_many({f"k{n}": n for n in range(2500)})
    assert cache.delete_pattern("k1*") == 1111
    cache.clear()
    assert (cache.keys(), make(namespace="mks2").get("k"), redis_server.command("GET", "foreign")) == (
        [],
        1,
        b"1",
    )
    assert cache.delete_pattern("*") == 1389
    generations = [b"mks2:t:{= generation}", b"mks:t:{= generation}"]
    assert set(redis_server.command("KEYS", "*")) == {b"foreign", b"mks2:v:{=k}", *generations}


def test_a_dead_holder_of_a_lease_does_not_block_for_ever(make: Any, redis_server: RedisServer) -> None:
    redis_server.command("HSET", "mks:l:{=k}", "token", "dead", "until", int(time.time() * 1000) + 50)
    assert make().get_or_compute("k", lambda: 7) == 7


def test_maintenance_has_time_of_its_own(make: Any) -> None:
    cache = make(store_budget=5)
    cache.set_many({f"k{number}": number for number in range(1500)})
    with request_budget(0.000001):  # the request has spent what it may
        assert cache.delete_pattern("k*") == 1500


def test_an_outage_is_a_miss_and_never_an_error(redis_server: RedisServer) -> None:
    with RedisCache(redis_server.url, store_budget=0.2) as cache:
        cache.set("k", 1)
        redis_server.kill()
        calls: list[int] = []
        assert cache.get("k", 7) == 7
        assert [cache.get_or_compute("k", lambda: calls.append(1) or 2, tags=["t"]) for _ in range(3)] == [
            2,
            2,
            2,
        ]
        assert not cache.set("k", 1)
        assert cache.get_many(["k"]) == {}
        assert (cache.delete("k"), cache.delete_pattern("*"), cache.exists("k")) == (0, 0, False)
        assert not cache.invalidate_tags("t")
        assert not cache.ping()
        assert len(calls) == 3
        assert cache.stats().errors >= 8


def test_the_cache_works_again_after_a_restart(redis_server: RedisServer) -> None:
    from mks_hardening._core.clock import SYSTEM_CLOCK

    with RedisCache(redis_server.url, store_budget=1) as cache:
        redis_server.kill()
        assert cache.get("k") is None
        redis_server.start()
        deadline = SYSTEM_CLOCK.monotonic() + 10
        while not cache.set("k", 1) and SYSTEM_CLOCK.monotonic() < deadline:
            pass
        assert cache.get("k") == 1


def test_a_frozen_server_does_not_hold_the_caller(redis_server: RedisServer) -> None:
    with RedisCache(redis_server.url, store_budget=0.05) as cache:
        cache.set("k", 1)
        redis_server.pause()
        try:
            assert [cache.get_or_compute("k", lambda: 7) for _ in range(20)] == [7] * 20
        finally:
            redis_server.resume()


FAULTS: dict[str, list[tuple[str | int, ...]]] = {
    "full": [("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory-policy", "noeviction")],
    "read-only": [("REPLICAOF", "127.0.0.1", 1)],
    "too few replicas": [("CONFIG", "SET", "min-replicas-to-write", 3)],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_answers_with_errors_is_no_error(make_redis: Any, fault: str) -> None:
    server = make_redis()
    with RedisCache(server.url, store_budget=1) as cache:
        cache.set("k", 1)
        for command in FAULTS[fault]:
            server.command(*command)
        assert cache.get_or_compute("c", lambda: 7, tags=["t"]) == 7
        assert cache.get("k", 7) in {1, 7}
        cache.set("k", 2, tags=["t"])
        cache.delete("x")
        assert cache.stats().errors >= 1


def test_a_server_that_wants_a_password_is_no_error(make_redis: Any) -> None:
    server = make_redis(password="hunter2")
    with RedisCache(f"redis://127.0.0.1:{server.port}/0", store_budget=1) as cache:
        assert cache.get_or_compute("k", lambda: 7) == 7
        assert cache.stats().errors >= 1
    with RedisCache(server.url, store_budget=1) as cache:
        assert cache.set("k", 1)
        assert cache.get("k") == 1


def test_garbage_on_the_wire_is_no_error(redis_server: RedisServer, make_http_sink: Any) -> None:
    from testbed.http_sink import Answer

    sink = make_http_sink()
    sink.default = Answer(raw=b"HTTP/1.0 400 Bad Request\r\n\r\n")
    with RedisCache(f"redis://127.0.0.1:{sink.port}/0", store_budget=0.3) as cache:
        assert cache.get_or_compute("k", lambda: 7) == 7
        assert cache.get("k") is None


def test_an_outage_is_no_error_on_an_event_loop_either(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with RedisCache(redis_server.url, store_budget=0.3) as cache:
            await cache.aset("k", 1)
            redis_server.kill()

            async def compute() -> int:
                return 7

            assert await cache.aget("k", 7) == 7
            assert await cache.aget_or_compute("k", compute) == 7
            assert not await cache.aset("k", 1)
            assert not await cache.aping()
            assert await cache.adelete_pattern("*") == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("signing_keys", {"signing_keys": ["short"]}),
        ("signing_keys", {"signing_keys": "one long text that is a single key"}),
        ("signing_keys", {"signing_keys": []}),
        ("signing_keys", {"signing_keys": [17]}),
        ("namespace", {"namespace": "a{b"}),
        ("namespace", {"namespace": ""}),
        ("namespace", {"namespace": "a*"}),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisCache("redis://127.0.0.1:1/0", **options)
    assert caught.value.parameter == parameter


def test_no_repr_shows_a_secret() -> None:
    with RedisCache("redis://user:hunter2@127.0.0.1:1/0", signing_keys=["hunter2-hunter2-hunter2"]) as cache:
        assert "hunter2" not in repr(cache)


def test_the_version_of_a_tag_in_use_does_not_end(make: Any, redis_server: RedisServer) -> None:
    """It would end for all values at once, a month after the first of them."""
    cache = make()
    cache.set("k", 1, tags=["hot"])
    with redis_server.client() as client:
        (name,) = client.keys("*:t:{=hot}")
        month = client.pttl(name)
        for keep in (
            lambda: cache.set("other", 2, tags=["hot"]),
            lambda: cache.get_or_compute("third", lambda: 3, tags=["hot"]),
        ):
            client.pexpire(name, 60_000)
            keep()
            assert client.pttl(name) > month - 60_000
    assert cache.get("k") == 1


def test_tags_live_as_long_as_the_longest_entry_under_them(make: Any, redis_server: RedisServer) -> None:
    day = 24 * 3600
    cache = make(default_ttl=60)
    name = f"{cache.namespace}:t:{{=t}}"
    with redis_server.client() as client:
        cache.set("k", 1, tags=["t"])
        assert 29 * day < client.ttl(name) <= 30 * day
        cache.set("long", 2, ttl=90 * day, tags=["t"])
        assert client.ttl(name) > 90 * day
        cache.get_or_compute("short", lambda: 3, ttl=10, tags=["t"])  # another use does not shorten it
        assert client.ttl(name) > 90 * day
        cache.get_or_compute("longer", lambda: 4, ttl=200 * day, tags=["t"])
        assert client.ttl(name) > 200 * day
    assert cache.get_many(["k", "long", "short", "longer"]) == {"k": 1, "long": 2, "short": 3, "longer": 4}
    cache.invalidate_tags("t")
    assert cache.get_many(["k", "long", "short", "longer"]) == {}


def test_many_missing_keys_take_one_computation_and_few_round_trips(
    make: Any, redis_server: RedisServer
) -> None:
    cache, other = make(), make()
    keys = [f"k{number}" for number in range(500)]
    calls: list[int] = []

    def compute(missing: list[str]) -> dict[str, str]:
        calls.append(len(missing))
        return {key: key.upper() for key in missing}

    lease = other.begin("k7")  # of another process
    assert cache.get_or_compute_many(keys, compute, tags=["t"]) == {key: key.upper() for key in keys}
    assert other.get_many(keys).keys() == {*keys} - {"k7"}
    other.abandon("k7", lease)
    cache.get_or_compute_many(keys, compute, tags=["t"])
    assert calls == [500, 1]
    with redis_server.client() as client:
        assert client.keys("*:l:*") == []
    cache.invalidate_tags("t")
    assert other.get_many(keys) == {}


def test_clearing_does_not_look_at_the_keys(make: Any, redis_server: RedisServer) -> None:
    cache, other = make(), make()
    cache.set_many({f"k{number}": number for number in range(2000)})
    assert other.get("k7") == 7
    redis_server.command("CONFIG", "RESETSTAT")
    cache.clear()
    assert {name: redis_server.command_count(name) for name in ("set", "scan", "unlink")} == {
        "set": 1,
        "scan": 0,
        "unlink": 0,
    }
    assert (other.get("k7"), other.keys("k1*"), cache.get_many(["k1", "k2"])) == (None, [], {})
    assert cache.delete_pattern("*") == 2000  # frees the memory


def test_a_hit_does_not_read_the_generation_each_time(make: Any, redis_server: RedisServer) -> None:
    cache = make()
    cache.set("k", 1)
    assert cache.get("k") == 1
    redis_server.command("CONFIG", "RESETSTAT")
    began = time.monotonic()
    for _ in range(200):
        assert cache.get("k") == 1
    # At most once in 20 ms, together with a value.
    assert redis_server.command_count("mget") <= (time.monotonic() - began) / 0.02 + 1
    assert redis_server.command_count("get") + redis_server.command_count("mget") == 200


@pytest.mark.parametrize("name", ["v:{=k}", "t:{=tag}", "t:{= generation}"])
@pytest.mark.parametrize("damage", [("RPUSH", b"x"), ("SET", b"\x80\x04garbage")])
def test_damaged_names_are_replaced_by_the_next_computations(
    make: Any, redis_server: RedisServer, name: str, damage: tuple[str, bytes]
) -> None:
    work = itertools.count()

    def read(cache: RedisCache) -> object:
        return cache.get_or_compute("k", lambda: next(work), tags=("tag",), ttl=60)

    read(make())
    redis_server.command("DEL", f"mks:{name}")
    redis_server.command(damage[0], f"mks:{name}", damage[1])
    other = make()  # knows nothing of the time before
    wait_until(lambda: read(other) == read(other), timeout=5, what="a stored value")


def test_a_damaged_generation_is_not_replaced_by_a_first_one(make: Any, redis_server: RedisServer) -> None:
    """A first one would admit entries of earlier releases, which a ``clear`` may have removed."""
    redis_server.command("SET", "mks:t:{= generation}", b"damaged")
    make().set("k", 1)
    generation = redis_server.command("GET", "mks:t:{= generation}")
    assert (len(generation), generation[0]) == (8, 1)
