"""Cost of a cached call, compared with functools.lru_cache and a raw Redis GET.

    python benchmarks/cache.py [redis-server]

Medians over interleaved rounds. The second part starts a redis-server on a free loopback port, and is skipped if
redis-server is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from mks_hardening._core.canonical_text import canonical, digest
from mks_hardening.cache import MemoryCache, RedisCache, TieredCache, cached
from mks_hardening.cache._call_keys import call_normalizer

RECORD = {
    "id": 17,
    "title": "鉄筋の継手",
    "body": "圧接と機械式継手の検査" * 12,
    "tags": ["鉄筋", "品質"],
    "draft": False,
}
ROWS = [{**RECORD, "id": number} for number in range(50)]


class Row(msgspec.Struct):
    """The record with declared fields."""

    id: int
    title: str
    body: str
    tags: list[str]
    draft: bool


DECLARED: dict[str, tuple[Any, Any]] = {
    "small record": (Row, msgspec.convert(RECORD, Row)),
    "list of 50": (list[Row], msgspec.convert(ROWS, list[Row])),
}
# On a machine that is late a write within a tenth of a second fails, and every hit after it is a miss.
PATIENCE = 5.0


def interleaved(
    contenders: dict[str, Callable[[], Any]], *, calls: int, rounds: int = 15
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, figures: dict[str, float]) -> None:
    base = next(iter(figures.values()))
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:44} {value:10.2f} µs {value / base:7.2f} x")


def function(a: int, b: str, page: int = 1) -> Any:
    return (a, b, page) and RECORD


def text_function(a: int, b: str, page: int = 1) -> Any:
    return (a, b, page) and "text"


def answering(value: Any) -> Callable[[int], Any]:
    return lambda _a: value


def keys() -> None:
    normalize = call_normalizer(function)
    make_key: Any = functools._make_key  # type: ignore[attr-defined]  # what lru_cache itself uses
    show(
        "The key of f(17, 'abc', page=3)",
        interleaved(
            {
                "functools._make_key and hash": lambda: hash(make_key((17, "abc"), {"page": 3}, True)),
                "ours: normalised, typed, digested": lambda: digest(canonical(normalize(17, "abc", page=3))),
            },
            calls=20_000,
        ),
    )


def memory() -> None:
    plain = functools.lru_cache(maxsize=128)(text_function)
    text = cached(cache=MemoryCache(), key_prefix="t")(text_function)
    record = cached(cache=MemoryCache(), key_prefix="r")(function)
    cache = MemoryCache()
    cache.set("k", "text")
    show(
        "A hit in memory",
        interleaved(
            {
                "functools.lru_cache (no ttl, aliases)": lambda: plain(17, "abc", page=3),
                "MemoryCache.get, immutable value": lambda: cache.get("k"),
                "@cached, immutable value": lambda: text(17, "abc", page=3),
                "@cached, record (decoded anew)": lambda: record(17, "abc", page=3),
            },
            calls=5_000,
        ),
    )


@contextlib.contextmanager
def redis_server(program: str) -> Iterator[str]:
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def over_redis(url: str) -> None:
    import redis

    raw = redis.Redis.from_url(url)
    signed = RedisCache(url, namespace="signed", signing_keys=["0123456789abcdef"], store_budget=PATIENCE)
    unsigned = RedisCache(url, namespace="unsigned", store_budget=PATIENCE)
    tiers = TieredCache(MemoryCache(), RedisCache(url, namespace="tiers", store_budget=PATIENCE), l1_ttl=3600)
    for title, value in (("small record", RECORD), ("list of 50", ROWS)):
        functions = {
            name: cached(cache=cache, key_prefix=title)(answering(value))
            for name, cache in (("signed", signed), ("unsigned", unsigned), ("tiers", tiers))
        }
        kind, declared = DECLARED[title]
        functions |= {
            f"{name}, declared": cached(cache=cache, key_prefix=f"{title} declared", value_type=kind)(
                answering(declared)
            )
            for name, cache in (("signed", signed), ("unsigned", unsigned))
        }
        for one in functions.values():
            one(17)
        stored = f"signed:v:{{={functions['signed'].cache_key(17)}}}"
        show(
            f"A hit over Redis, {title} ({len(raw.get(stored))} bytes)",  # type: ignore[arg-type]
            interleaved(
                {
                    "redis-py GET, not decoded": functools.partial(raw.get, stored),
                    "@cached": functools.partial(functions["unsigned"], 17),
                    "@cached, signed": functools.partial(functions["signed"], 17),
                    "@cached, return type declared": functools.partial(functions["unsigned, declared"], 17),
                    "@cached, signed, declared": functools.partial(functions["signed, declared"], 17),
                    "@cached, tiers (a hit in memory)": functools.partial(functions["tiers"], 17),
                },
                calls=300,
            ),
        )
    invalidation(url)
    asyncio.run(asynchronous(url))
    for cache in (signed, unsigned, tiers):
        cache.close()


async def asynchronous(url: str) -> None:
    from redis import asyncio as aredis

    raw = aredis.Redis.from_url(url)
    cache = RedisCache(url, signing_keys=["0123456789abcdef"], store_budget=PATIENCE)

    @cached(cache=cache, key_prefix="async")
    async def answer(_a: int) -> Any:
        return RECORD

    await answer(17)
    stored = f"mks:v:{{={answer.cache_key(17)}}}"
    times: dict[str, list[float]] = {"redis.asyncio GET, not decoded": [], "@cached async, signed": []}
    calls: list[Callable[[], Any]] = [lambda: raw.get(stored), lambda: answer(17)]
    for _ in range(15):
        for name, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            for _ in range(200):
                await call()
            times[name].append((time.perf_counter() - start) / 200 * 1e6)
    show("A hit over Redis, asyncio", {name: statistics.median(values) for name, values in times.items()})
    await raw.aclose()
    await cache.aclose()


def invalidation(url: str) -> None:
    with RedisCache(url, namespace="inv", store_budget=60) as cache:
        for start in range(0, 100_000, 5_000):
            cache.set_many({f"k{number}": number for number in range(start, start + 5_000)}, tags=["t"])
        start_time = time.perf_counter()
        cache.invalidate_tags("t")
        by_tag = time.perf_counter() - start_time
        start_time = time.perf_counter()
        cache.delete_pattern("k1*")
        by_pattern = time.perf_counter() - start_time
        print("\nForgetting, of 100,000 keys")
        print(f"  all by one tag {by_tag * 1000:10.2f} ms")
        print(f"  11,111 by pattern {by_pattern * 1000:7.2f} ms")
        cache.clear()


def main() -> None:
    keys()
    memory()
    program = sys.argv[1] if len(sys.argv) > 1 else shutil.which("redis-server")
    if program is None:
        print("\nno redis-server: the part over Redis is left out")
        return
    with redis_server(program) as url:
        over_redis(url)


if __name__ == "__main__":
    main()
