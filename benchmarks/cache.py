"""Cost of a cached call, compared with functools.lru_cache and a raw Redis GET.

    python benchmarks/cache.py [redis-server]

Peers that are not installed are left out. The second part starts a redis-server on a free loopback port, and is
skipped if redis-server is not installed.
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
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec
from figures import keep

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
BATCH = 0.0002


def interleaved(contenders: dict[str, Callable[[], Any]], *, rounds: int = 400) -> dict[str, float]:
    """Return the microseconds of a call of each: the lower quartile over rounds of equally short batches.

    A batch takes a fifth of a millisecond, whatever a call takes: on a busy machine, longer ones are interrupted by
    other processes, so that a call of one microsecond would seem to take ten times as long as one of a tenth.
    """
    batches: dict[str, int] = {}
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        for _ in range(5):
            call()
        batches[name] = max(1, min(2000, int(BATCH / ((time.perf_counter() - start) / 5))))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            calls = range(batches[name])
            start = time.perf_counter()
            for _ in calls:
                call()
            times[name].append((time.perf_counter() - start) / len(calls) * 1e6)
    return {name: lower_quartile(values) for name, values in times.items()}


def lower_quartile(values: list[float]) -> float:
    return statistics.quantiles(values, n=4)[0]


def show(title: str, figures: dict[str, float]) -> None:
    keep(title, figures)
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
                "ours: normalised, typed, digested": lambda: digest(
                    canonical(normalize(17, "abc", page=3)[0])
                ),
            },
        ),
    )


def memory() -> None:
    plain = functools.lru_cache(maxsize=128)(text_function)
    text = cached(cache=MemoryCache(), key_prefix="t")(text_function)
    record = cached(cache=MemoryCache(), key_prefix="r")(function)
    cache = MemoryCache()
    cache.set("k", "text")
    peers: dict[str, Callable[[], Any]] = {}
    with contextlib.suppress(ImportError):
        import cachetools

        theirs: Any = cachetools.cached(cachetools.TTLCache(128, 3600), lock=threading.Lock())(text_function)
        peers["cachetools TTLCache with a lock (aliases)"] = lambda: theirs(17, "abc", page=3)
    show(
        "A hit in memory",
        interleaved(
            {
                "functools.lru_cache (no ttl, aliases)": lambda: plain(17, "abc", page=3),
                **peers,
                "MemoryCache.get, immutable value": lambda: cache.get("k"),
                "@cached, immutable value": lambda: text(17, "abc", page=3),
                "@cached, record (decoded anew)": lambda: record(17, "abc", page=3),
            },
        ),
    )


@contextlib.contextmanager
def redis_server(program: str) -> Iterator[str]:
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        arguments += ["--enable-debug-command", "yes"]  # to fill it quickly
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
        packed = msgspec.msgpack.encode(declared)
        raw.set("by hand", blake2b(packed, key=b"0123456789abcdef").digest() + packed)
        decode = msgspec.msgpack.Decoder(kind).decode

        def by_hand(decode: Callable[[bytes], Any] = decode) -> Any:
            data: Any = raw.get("by hand")
            assert blake2b(data[64:], key=b"0123456789abcdef").digest() == data[:64]
            return decode(data[64:])

        show(
            f"A hit over Redis, {title} ({len(raw.get(stored))} bytes)",  # type: ignore[arg-type]
            interleaved(
                {
                    "redis-py GET, not decoded": functools.partial(raw.get, stored),
                    "GET, BLAKE2b, typed msgspec, by hand": by_hand,
                    **peers(url, value),
                    "@cached": functools.partial(functions["unsigned"], 17),
                    "@cached, signed": functools.partial(functions["signed"], 17),
                    "@cached, return type declared": functools.partial(functions["unsigned, declared"], 17),
                    "@cached, signed, declared": functools.partial(functions["signed, declared"], 17),
                    "@cached, tiers (a hit in memory)": functools.partial(functions["tiers"], 17),
                },
            ),
        )
    asyncio.run(asynchronous(url))
    tracking(url)
    growth(url)
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
    for _ in range(400):
        for name, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            for _ in range(3):
                await call()
            times[name].append((time.perf_counter() - start) / 3 * 1e6)
    show("A hit over Redis, asyncio", {name: lower_quartile(values) for name, values in times.items()})
    await raw.aclose()
    await cache.aclose()


def peers(url: str, value: Any) -> dict[str, Callable[[], Any]]:
    """Return a hit in Redis of each peer that is installed."""
    found: dict[str, Callable[[], Any]] = {}
    with contextlib.suppress(ImportError):
        from flask import Flask
        from flask_caching import Cache

        app = Flask("peer")
        theirs: Any = Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url})
        with app.app_context():
            theirs.set("flask", value)

        def flask_caching() -> Any:
            with app.app_context():
                return theirs.get("flask")

        found["Flask-Caching get (pickle)"] = flask_caching
    with contextlib.suppress(ImportError):
        from dogpile.cache import make_region  # type: ignore[import-not-found]  # not among our dependencies

        region: Any = make_region().configure("dogpile.cache.redis", arguments={"url": url})
        called = region.cache_on_arguments()(answering(value))
        called(17)
        found["dogpile.cache cache_on_arguments (pickle)"] = lambda: called(17)
    return found


def tracking(url: str) -> None:
    """Copies in memory that Redis keeps current: how soon a foreign write drops one, and what a hit costs."""
    far = RedisCache(url, namespace="tracked", store_budget=PATIENCE)
    near = RedisCache(url, namespace="tracked", store_budget=PATIENCE)
    with TieredCache(MemoryCache(), near, l1_ttl=3600, client_tracking=True) as cache, far:
        times: list[float] = []
        trips: list[float] = []
        for number in range(2000):
            far.set("k", number)
            while cache.get("k") != number or cache.peek("k") != number:
                pass
            start = time.perf_counter()
            far.set("k", -number)
            written = time.perf_counter()
            while cache.peek("k") == number and number:
                pass
            times.append((time.perf_counter() - written) * 1000)
            trips.append((written - start) * 1000)
        print("\nA copy in memory after a foreign write (client tracking), milliseconds")
        for name, values in (("the write itself", trips), ("from its response to the drop", times)):
            ordered = sorted(values)
            p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
            print(f"  {name:44} p50 {p50:6.3f}   p99 {p99:6.3f}   longest {ordered[-1]:6.3f}")
        memory = MemoryCache()
        memory.set("k", 1)
        far.set("k", 1)
        while cache.get("k") != 1 or cache.peek("k") != 1:
            pass
        show(
            "A hit in memory, tracked",
            interleaved(
                {
                    "MemoryCache.get": lambda: memory.get("k"),
                    "TieredCache.get, tracked": lambda: cache.get("k"),
                },
            ),
        )


def growth(url: str) -> None:
    """The cost of each operation on one entry, or on 10,000, while a server holds more and more."""
    import redis

    raw: Any = redis.Redis.from_url(url, socket_timeout=300)
    raw.config_set("slowlog-log-slower-than", 0)  # the server's own figures, without the way to it
    raw.config_set("slowlog-max-len", 100_000)
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    rows: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    def timed(name: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        call()
        add(name, (time.perf_counter() - start) * 1000)

    with RedisCache(url, namespace="growth", store_budget=60) as cache:
        for size in sizes:
            raw.flushall()
            raw.execute_command("DEBUG", "POPULATE", size, "other", 100)
            for start in range(0, 10_000, 5_000):
                entries = {f"k{number}": number for number in range(start, start + 5_000)}
                cache.set_many(entries, tags=["t"])
                cache.set_many({f"p{key}": number for key, number in entries.items()})
            for name, call in (
                ("a hit", lambda: cache.get("pk17")),
                ("a value stored", lambda: cache.set("one", 1)),
                ("a key deleted", lambda: cache.delete("one")),
            ):
                add(name, min(interleaved({name: call}).values()) / 1000)
            timed("10,000 values invalidated by their tag", lambda: cache.invalidate_tags("t"))
            assert cache.get("k17") is None
            idle = _waits(url, lambda: time.sleep(1))
            raw.slowlog_reset()
            busy = _waits(
                url, lambda: timed("10,000 values deleted by a pattern", lambda: cache.delete_pattern("pk*"))
            )
            of_pattern = (b"SCAN", b"UNLINK")
            log = raw.slowlog_get(100_000)
            took = sorted(entry["duration"] for entry in log if entry["command"].startswith(of_pattern))
            add("  a command of it in the server, p99", took[int(len(took) * 0.99)] / 1000)
            add("  the longest one", took[-1] / 1000)
            add("  another client waits meanwhile, p99", busy)
            add("  the same client beside an idle server, p99", idle)
            timed("everything invalidated (clear)", cache.clear)
    print(f"\nMilliseconds while the server holds other keys {''.join(f'{size:>12,}' for size in sizes)}")
    for name, values in rows.items():
        print(f"  {name:44} {''.join(f'{value:12.3f}' for value in values)}")


def _waits(url: str, work: Callable[[], Any]) -> float:
    """Return the 99th percentile of the milliseconds that pings of another connection take during some work."""
    import redis

    raw = redis.Redis.from_url(url, socket_timeout=60)
    raw.ping()
    times: list[float] = []
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        start = time.perf_counter()
        raw.ping()
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(0.0005)
    thread.join()
    raw.close()
    return sorted(times)[int(len(times) * 0.99)]


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
