"""Contract suite for cache backends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from mks_hardening.testing.contracts.contract_checks import DISTINCT_TEXTS, at_once, require
from mks_hardening.testing.frozen_clock import FrozenClock

__all__ = ["CacheContract"]

UserCache: TypeAlias = Any
"""A cache of the user, of any class with the methods of ``MemoryCache``."""


class CacheContract:
    """Required behaviour of every cache; derive a test class and implement ``make_cache``.

    Each test creates a new, empty cache with a namespace; caches with different namespaces may share a server.
    """

    def make_cache(self, namespace: str, *, clock: FrozenClock) -> UserCache:
        """Return a new, empty cache without jitter."""
        raise NotImplementedError

    def test_values_come_back_as_they_were_given(self) -> None:
        """Values are equal, of the same types, and never the same mutable object."""
        cache = self.make_cache("values", clock=FrozenClock())
        moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
        values: list[object] = [
            None,
            False,
            0,
            "",
            b"",
            [],
            {},
            (),
            1,
            1.5,
            -(2**70),
            "技術",
            b"\x00\xff",
            moment,
            {1: "a"},
        ]
        values += [{"a": [1, (2, {"b": None})]}, {1, 2}, frozenset({"x"}), moment.date(), float("inf")]
        for number, value in enumerate(values):
            require(cache.set(f"k{number}", value), "a value is stored")
            for _ in range(2):
                stored = cache.get(f"k{number}", "absent")
                require(stored == value and type(stored) is type(value), f"{value!r} comes back as it was")
        changed = cache.get(f"k{len(values) - 5}")
        changed["a"].clear()
        require(
            cache.get(f"k{len(values) - 5}") == values[-5],
            "changing a returned value does not change the cache",
        )

    def test_what_is_not_there(self) -> None:
        """A missing key returns the default; ``None`` is a value."""
        cache = self.make_cache("absent", clock=FrozenClock())
        require(cache.get("k") is None and cache.get("k", 7) == 7, "an absent key has the default")
        require(not cache.exists("k") and cache.delete("k") == 0, "an absent key does not exist")
        cache.set("k", None)
        require(cache.exists("k") and cache.get("k", 7) is None, "None is a value")
        require(cache.delete("k", "other") == 1 and not cache.exists("k"), "a deleted key is gone")

    def test_many_at_once(self) -> None:
        """Several keys are read and written in one call."""
        cache = self.make_cache("many", clock=FrozenClock())
        require(cache.set_many({"a": 1, "b": 2}), "several values are stored")
        require(
            cache.get_many(["a", "x", "b", "a"]) == {"a": 1, "b": 2},
            "get_many returns the keys that have a value",
        )
        require(cache.get_many([]) == {} and cache.set_many({}), "get_many and set_many accept no keys")

    def test_time_to_live(self) -> None:
        """A value never lives longer than requested, even if the clock is set back."""
        clock = FrozenClock()
        cache = self.make_cache("ttl", clock=clock)
        cache.set("k", 1, ttl=10)
        clock.advance(9)
        require(cache.get("k") == 1, "a value exists before its ttl expires")
        clock.advance(2)
        require(cache.get("k") is None, "a value expires after its ttl")
        cache.set("k", 1)
        cache.set("k", 2, ttl=0)
        require(not cache.exists("k"), "ttl=0 stores nothing")

    def test_every_way_of_writing_takes_ttl_and_tags(self) -> None:
        """``set_many`` and ``get_or_compute`` accept both, like ``set``."""
        clock = FrozenClock()
        cache = self.make_cache("ways", clock=clock)
        cache.set_many({"many": 1, "many too": 2}, ttl=10)
        cache.get_or_compute("computed", lambda: 3, ttl=10)
        cache.set_many({"many later": 4}, ttl=1000)
        cache.get_or_compute("computed later", lambda: 5, ttl=1000)
        cache.get_or_compute("not kept", lambda: 6, ttl=0)
        require(not cache.exists("not kept"), "ttl=0 stores nothing")
        clock.advance(11)
        present = [key for key in ("many", "many too", "computed") if cache.exists(key)]
        require(present == [], "each value expires after its own ttl")
        require(
            cache.get_many(["many later", "computed later"]) == {"many later": 4, "computed later": 5},
            "others stay",
        )
        cache.set_many({"many": 1}, tags=["m"])
        cache.get_or_compute("computed", lambda: 2, tags=["c"])
        cache.invalidate_tags("m")
        require(not cache.exists("many") and cache.exists("computed"), "set_many keeps tags")
        cache.invalidate_tags("c")
        require(not cache.exists("computed"), "get_or_compute keeps tags")

    def test_keys_are_compared_exactly(self) -> None:
        """There is no case folding, no whitespace stripping, no Unicode normalisation."""
        cache = self.make_cache("exact", clock=FrozenClock())
        cache.set_many({key: number for number, key in enumerate(DISTINCT_TEXTS)})
        for number, key in enumerate(DISTINCT_TEXTS):
            require(cache.get(key) == number, f"{key!a} is a separate key")
        cache.delete(DISTINCT_TEXTS[0])
        require(cache.get(DISTINCT_TEXTS[1]) == 1, "deleting one leaves the others")

    def test_tags(self) -> None:
        """One call deletes all values of a tag, and no others."""
        cache = self.make_cache("tags", clock=FrozenClock())
        cache.set("a", 1, tags=["x"])
        cache.set("b", 2, tags=["x", "y"])
        cache.set("c", 3, tags=["y"])
        cache.set("d", 4)
        require(cache.invalidate_tags("x", "unknown"), "tags can be invalidated")
        require(cache.get_many("abcd") == {"c": 3, "d": 4}, "values of the tag are gone")
        cache.set("a", 5, tags=["x"])
        require(cache.get("a") == 5, "a tag can be used again")

    def test_patterns_and_clear(self) -> None:
        """Glob patterns apply only inside the namespace."""
        cache = self.make_cache("patterns", clock=FrozenClock())
        other = self.make_cache("patterns2", clock=FrozenClock())
        other.set("list:1", 1)
        cache.set_many({"list:1": 1, "list:2": 2, "item:1": 3, "lis*": 4})
        require(cache.delete_pattern("lis\\*") == 1, "a backslash makes a star literal")
        require(cache.delete_pattern("list:[0-1]") == 1, "sets are stored and read as sets")
        cache.set_many({"open": 1, "open[": 1, "open\\": 1, "open[a-]": 1})
        for pattern in ("open[", "open\\", "open[a-]"):
            require(cache.delete_pattern(pattern) == 1, "what is opened and not closed stands for itself")
        require(cache.get("open") == 1, "special characters of a pattern match only themselves")
        require(cache.get_many(["list:2", "item:1"]) == {"list:2": 2, "item:1": 3}, "the others stay")
        cache.clear()
        require(not cache.exists("item:1") and other.get("list:1") == 1, "clear empties its own namespace")

    def test_computing(self) -> None:
        """A value is computed once for each key; errors are not cached; ``None`` is."""
        cache = self.make_cache("compute", clock=FrozenClock())
        calls: list[object] = []

        def compute() -> None:
            calls.append(1)

        for _ in range(3):
            require(cache.get_or_compute("k", compute) is None, "the computed value is returned")
        require(len(calls) == 1, "a value is computed once")

        def fail() -> None:
            calls.append(1)
            raise KeyError("nope")

        for _ in range(2):
            try:
                cache.get_or_compute("e", fail)
            except KeyError:
                continue
            raise AssertionError("errors reach the caller")
        require(len(calls) == 3, "errors are not stored")

    def test_an_invalidation_during_a_computation_wins(self) -> None:
        """An invalidation wins, whichever method is used."""
        invalidations: tuple[Callable[[UserCache], object], ...] = (
            lambda cache: cache.delete("k"),
            lambda cache: cache.invalidate_tags("t"),
            lambda cache: cache.delete_pattern("k*"),
            lambda cache: cache.clear(),
            lambda cache: cache.set("k", "newer") and cache.delete("k"),
        )
        for number, invalidate in enumerate(invalidations):
            cache = self.make_cache(f"lease{number}", clock=FrozenClock())

            def compute(
                cache: UserCache = cache, invalidate: Callable[[UserCache], object] = invalidate
            ) -> str:
                invalidate(cache)
                return "old"

            require(
                cache.get_or_compute("k", compute, tags=["t"]) == "old", "the caller gets what it computed"
            )
            require(cache.get("k") is None, "an invalidated computation is not stored")
            require(
                cache.get_or_compute("k", lambda: "new", tags=["t"]) == "new",
                "the next one computes it again",
            )
            require(cache.get("k") == "new", "a computation that begins after the invalidation is stored")

    def test_a_write_during_a_computation_wins(self) -> None:
        """A value set during the computation is newer than the computed one."""
        cache = self.make_cache("write", clock=FrozenClock())
        cache.get_or_compute("k", lambda: cache.set("k", "set") and "computed")
        require(cache.get("k") == "set", "the written value stays")

    def test_a_recursive_computation_does_not_wait_for_itself(self) -> None:
        """A recursive call computes the value itself."""
        cache = self.make_cache("recursive", clock=FrozenClock())
        value = cache.get_or_compute("k", lambda: [cache.get_or_compute("k", lambda: "inner"), "outer"])
        require(value == ["inner", "outer"], "a recursive computation ends")

    def test_threads_share_a_computation(self) -> None:
        """One thread computes, all get the value."""
        cache = self.make_cache("threads", clock=FrozenClock())
        calls: list[int] = []
        everybody = threading.Barrier(8)

        def compute(number: int) -> str:
            calls.append(number)
            return "value"

        def work(number: int) -> object:
            everybody.wait()
            # On a busy machine the computing thread may be suspended for longer than others wait by default.
            return cache.get_or_compute("k", lambda: compute(number), compute_wait=60)

        require(at_once(work, threads=8) == ["value"] * 8, "all get the value")
        require(len(calls) == 1, "one computes it")

    def test_async_twins(self) -> None:
        """The asynchronous methods return the same results, also with concurrent tasks."""
        import asyncio

        cache = self.make_cache("async", clock=FrozenClock())
        calls: list[int] = []

        async def compute() -> str:
            calls.append(1)
            await asyncio.sleep(0)
            return "value"

        async def scenario() -> None:
            await cache.aset("a", 1, tags=["t"])
            await cache.aset_many({"b": 2, "c": 3})
            require(await cache.aget("a") == 1 and await cache.aexists("b"), "stored values are found")
            require(
                await cache.aget_many(["a", "c"]) == {"a": 1, "c": 3}, "the async methods read several keys"
            )
            await cache.ainvalidate_tags("t")
            require(await cache.aget("a", 7) == 7, "a tag invalidates its values")
            require(
                await cache.adelete("b") == 1 and await cache.adelete_pattern("c*") == 1, "deleting works"
            )
            values = await asyncio.gather(*(cache.aget_or_compute("k", compute) for _ in range(10)))
            require(values == ["value"] * 10 and len(calls) == 1, "tasks share a computation")
            require(await cache.aping(), "a working cache responds")
            await cache.aclear()
            require(not await cache.aexists("k"), "clear removes all values")
            await cache.aclose()

        asyncio.run(scenario())

    def test_async_twins_take_ttl_and_tags(self) -> None:
        """Each accepts both, like its synchronous version."""
        import asyncio

        clock = FrozenClock()
        cache = self.make_cache("async-ways", clock=clock)

        async def value() -> str:
            return "value"

        async def write(**options: Any) -> None:
            await cache.aset("one", 1, **options)
            await cache.aset_many({"many": 2}, **options)
            await cache.aget_or_compute("computed", value, **options)

        async def scenario() -> None:
            keys = ["one", "many", "computed"]
            await write(ttl=10)
            require(set(await cache.aget_many(keys)) == set(keys), "values exist before their ttl expires")
            clock.advance(11)
            require(await cache.aget_many(keys) == {}, "each value expires after its own ttl")
            await write(ttl=1000, tags=["t"])
            clock.advance(11)
            require(set(await cache.aget_many(keys)) == set(keys), "values with the longest ttl are stored")
            await cache.ainvalidate_tags("t")
            require(await cache.aget_many(keys) == {}, "values of the tag are gone")
            await cache.aclose()

        asyncio.run(scenario())

    def test_what_cannot_be_kept_is_refused(self) -> None:
        """Objects and invalid parameters are rejected."""
        cache = self.make_cache("refused", clock=FrozenClock())
        refused: list[Callable[[], object]] = [
            lambda: cache.set("k", object()),
            lambda: cache.set("", 1),
            lambda: cache.get("k" * 513),
            lambda: cache.set("k", 1, ttl=-1),
            lambda: cache.set("k", 1, tags="one"),
            lambda: cache.set("k", 1, tags=["with blank"]),
            lambda: cache.invalidate_tags(""),
        ]
        for number, call in enumerate(refused):
            try:
                call()
            except ValueError:
                continue
            raise AssertionError(f"number {number} must be refused")
        require(cache.get("k") is None, "nothing was stored")

    def test_what_cannot_be_kept_is_returned(self) -> None:
        """A value that cannot be stored is returned to the caller and computed again each time."""
        cache = self.make_cache("returned", clock=FrozenClock())
        made = [cache.get_or_compute("k", object) for _ in range(2)]
        require(made[0] is not made[1], "an object that is not plain data is returned but not stored")
        require(cache.get_or_compute("k", lambda: 1) == 1, "the key can still be used")

    def test_statistics_ping_and_close(self) -> None:
        """Hits and misses are counted, and ``close`` is idempotent."""
        cache = self.make_cache("stats", clock=FrozenClock())
        cache.set("k", 1)
        cache.get("k")
        cache.get("x")
        stats = cache.stats()
        require((stats.hits, stats.misses, stats.errors) == (1, 1, 0), "reads are counted")
        require(cache.ping(), "a working cache responds")
        cache.close()
        cache.close()
