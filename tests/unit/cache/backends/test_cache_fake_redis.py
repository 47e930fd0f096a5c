"""The Redis cache over other people's clients: fakeredis, and one with nothing but ``execute_command``."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.cache import RedisCache
from mks_hardening.exceptions import ConfigurationError


class OneMethod:
    """A client that can do one thing."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._client.execute_command(*args, **options)


@pytest.mark.parametrize("wrap", [lambda client: client, OneMethod], ids=["fakeredis", "one method"])
def test_any_client_will_do(mks_redis: Any, wrap: Any) -> None:
    cache = RedisCache(wrap(mks_redis), signing_keys=["0123456789abcdef"], jitter=0, store_budget=5)
    assert cache.set("k", {"a": (1, None)}, tags=["t"], ttl=60)
    assert cache.get("k") == {"a": (1, None)}
    assert cache.exists("k")
    assert [cache.get_or_compute("c", lambda: 7, tags=["t"]) for _ in range(2)] == [7, 7]
    assert cache.get_or_compute("lease", lambda: cache.invalidate_tags("t"), tags=["t"]) is True
    assert cache.get_many(["k", "c", "lease"]) == {}
    cache.set_many({"a:1": 1, "a:2": 2, "b": 3})
    assert cache.delete_pattern("a:*") == 2
    assert (cache.delete("b"), cache.ping()) == (1, True)
    cache.set("last", 1)
    cache.clear()
    assert (cache.get("last"), cache.keys()) == (None, [])
    assert cache.delete_pattern("*") > 0
    assert mks_redis.keys("*:v:*") == []
    assert cache.stats().errors == 0


def test_a_client_that_decodes_is_refused() -> None:
    import fakeredis

    with (
        fakeredis.FakeRedis(decode_responses=True) as client,
        pytest.raises(ConfigurationError, match="decode"),
    ):
        RedisCache(client)
