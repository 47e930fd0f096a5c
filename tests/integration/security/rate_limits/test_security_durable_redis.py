"""Whoever keeps second factors in a Redis that may lose them is told so, once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from mks_hardening.security import RedisPasskeyStore, RedisTwoFactorStore

pytestmark = pytest.mark.redis

SAFE = {"appendonly": "yes", "maxmemory": "50mb", "maxmemory-policy": "noeviction"}
EVICTS = "deletes entries when it is full (maxmemory-policy allkeys-lru)"
FORGETS = "keeps no append-only file"


def result(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "mks_hardening.security"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SAFE, []),
        ({**SAFE, "maxmemory-policy": "allkeys-lru"}, [EVICTS]),
        ({**SAFE, "maxmemory-policy": "allkeys-lru", "maxmemory": "0"}, []),
        ({**SAFE, "maxmemory-policy": "volatile-ttl"}, []),  # the keys have no expiry
        ({**SAFE, "appendonly": "no"}, [FORGETS]),
        ({**SAFE, "maxmemory-policy": "allkeys-lru", "appendonly": "no"}, [EVICTS, FORGETS]),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_a_loop", [False, True])
def test_settings_that_lose_factors_are_told_after_the_first_write(
    make_redis: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    options: dict[str, str],
    expected: list[str],
    on_a_loop: bool,
) -> None:
    url = make_redis(options=options).url
    for store, write in (
        (RedisTwoFactorStore(url), ("replace", ("u", b"x"), {"expected": None, "version": "1"})),
        (RedisPasskeyStore(url), ("assign_owner", ("credential", "u"), {})),
    ):
        caplog.clear()
        method, args, options_of = write

        async def twice(store: Any = store, write: Any = write) -> None:
            name, args, options_of = write
            for _ in range(2):
                await getattr(store, f"a{name}")(*args, **options_of)
            await store.aclose()

        if on_a_loop:
            asyncio.run(twice())
        else:
            for _ in range(2):
                getattr(store, method)(*args, **options_of)
        store.close()
        found = result(caplog)
        assert len(found) == len(expected)
        assert all(clue in text for clue, text in zip(expected, found, strict=True))


def test_a_server_that_does_not_tell_is_believed(
    make_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(options={"appendonly": "no"})
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info")
    url = server.url.replace("redis://", "redis://app:pw@")
    for store in (RedisTwoFactorStore(url), RedisTwoFactorStore(fakeredis.FakeRedis())):
        assert store.replace("u", b"x", expected=None, version="1")
        store.close()
    assert result(caplog) == []


def test_a_write_that_was_confirmed_does_not_fail_for_it(
    make_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "mks_hardening.security")
    server = make_redis()
    store = RedisTwoFactorStore(server.url)
    made = store._client.script

    def away(source: str) -> Any:
        if "maxmemory" in source:  # the check of the settings, after the write
            server.kill()
        return made(source)

    monkeypatch.setattr(store._client, "script", away)
    assert store.replace("u", b"x", expected=None, version="1")
    store.close()
    assert result(caplog) == []
