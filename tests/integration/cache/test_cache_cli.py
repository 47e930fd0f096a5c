"""``mks-hardening cache``: what operators see and invalidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mks_hardening.cache import RedisCache, cached
from mks_hardening.cli import main
from mks_hardening.contrib.prometheus_observer import PrometheusObserver
from mks_hardening.events import add_observer, remove_observer
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def redis_server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server of its own: clients of one server share a breaker, which another test may have opened."""
    return make_redis()


@pytest.fixture
def run(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.setenv("MKS_ENV", "development")
    monkeypatch.setenv("MKS_CACHE_URL", redis_server.url)
    monkeypatch.setenv("MKS_CACHE_SIGNING_KEYS", "0123456789abcdef-one")

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["cache", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[RedisCache]:
    with RedisCache(redis_server.url, signing_keys=["0123456789abcdef-one"], store_budget=5) as made:
        yield made


def test_values_are_counted_by_function(run: Run, cache: RedisCache) -> None:
    @cached(cache=cache, key_prefix="shop.price", tags=["prices"])
    def price(item: int) -> str:
        return "x" * 100

    for item in range(3):
        price(item)
    cache.set_many({"page:1": 1, "page:2": 2, "plain": 3})
    status, out, _ = run("stats")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert {line[2]: int(line[0]) for line in lines} == {
        "shop.price": 3,
        "page:*": 2,
        "plain": 1,
        "values": 6,
    }
    assert int(lines[0][1]) > 300  # the largest first
    assert int(lines[-1][1]) == sum(int(line[1]) for line in lines[:-1])
    assert [line.split()[0] for line in run("stats", "page:*")[1].splitlines()] == ["2", "2"]
    assert run("stats", "none")[1].split() == ["0", "0", "values", "and", "bytes", "in", "all"]


def test_hits_and_misses_of_all_processes_are_counted_by_function(
    run: Run, cache: RedisCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = PrometheusObserver(directory=tmp_path)
    add_observer(observer)
    try:

        @cached(cache=cache, key_prefix="shop.price")
        def price(item: int) -> int:
            return item

        for item in (1, 1, 1, 2):
            price(item)
        cache.get("other")
    finally:
        remove_observer(observer)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    status, out, _ = run("stats")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[2:] == [
        ["hit", "stale", "miss", "error", "bypass", "function"],
        ["2", "0", "2", "0", "0", "shop.price"],
        ["hit", "stale", "miss", "error", "bypass", "namespace"],
        ["2", "0", "3", "0", "0", "mks"],
    ]
    assert run("stats", "--metrics", str(tmp_path / "none"))[::2] == (
        2,
        "--metrics must be an existing directory\n",
    )


def test_keys_are_listed(run: Run, cache: RedisCache) -> None:
    cache.set_many({"a:1": 1, "a:2": 2, "b\n\x1b[31m": 3, "技術": 4})
    cache.set("a:gone", 1, tags=["t"])
    cache.invalidate_tags("t")
    assert run("keys", "a:*") == (0, "a:1\na:2\n", "")
    assert run("keys")[1].splitlines() == ["a:1", "a:2", "b\\n\\x1b[31m", "技術"]
    assert len(run("keys", "--limit", "2")[1].splitlines()) == 2
    assert run("keys", "--limit", "0")[0] == 2
    assert run("keys", "--namespace", "other")[1] == ""


def test_looking_deletes_nothing(run: Run, cache: RedisCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("a", 1)
    monkeypatch.setenv("MKS_CACHE_SIGNING_KEYS", "0123456789abcdef-two")
    assert run("keys") == (0, "", "")
    assert run("stats")[1].split()[::2][:2] == ["1", "a"]
    assert cache.get("a") == 1


def test_values_are_invalidated(run: Run, cache: RedisCache) -> None:
    cache.set_many({"a": 1, "b": 2, "c:1": 3, "c:2": 4, "d": 5})
    cache.set("e", 6, tags=["t"])
    assert run("invalidate", "a", "b", "none") == (0, "2 deleted\n", "")
    assert run("invalidate", "--pattern", "c:*", "--tag", "t")[1] == "invalidated by tag: t\n2 deleted\n"
    assert cache.keys() == ["d"]
    assert run("invalidate", "--all") == (0, "everything deleted\n", "")
    assert cache.keys() == []


def test_a_wrong_call_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("invalidate")[::2] == (2, "name keys, --tag, --pattern or --all\n")
    status, _, err = run("keys", "--redis", "redis://127.0.0.1:1/0")
    assert status == 3
    assert "cache is unavailable" in err
    monkeypatch.delenv("MKS_CACHE_URL")
    status, _, err = run("stats")
    assert status == 2
    assert "MKS_CACHE_URL or MKS_REDIS_URL" in err
