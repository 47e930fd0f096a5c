"""The short way to Redis is taken only where redis-py keeps its connections as it is known to."""

from __future__ import annotations

import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_connect import OLDEST, require_redis
from mks_hardening._core.backend.redis_lean_client import command_encoder, direct_async_pool, direct_pool
from mks_hardening._core.resilience.deadline_socket import call_deadline
from mks_hardening.exceptions import ConfigurationError


class OtherPool:
    """A pool of a version to come."""


@pytest.mark.parametrize("direct", [direct_pool, direct_async_pool])
def test_an_unknown_pool_stays_as_it_is(direct: Any) -> None:
    assert direct(OtherPool) is OtherPool


@pytest.mark.parametrize(
    ("direct", "pool"),
    [(direct_pool, redis.ConnectionPool), (direct_async_pool, redis.asyncio.ConnectionPool)],
)
def test_the_pool_of_the_installed_version_is_known(direct: Any, pool: type) -> None:
    kind = direct(pool)
    assert kind is not pool
    assert issubclass(kind, pool)


def test_no_time_left_to_connect_to_a_unix_socket_is_a_time_out(tmp_path: Path) -> None:
    """redis-py 8 looks for host and port in that case alone."""
    with RedisClient(f"unix://{tmp_path}/s") as client:
        connection = client._lease.client().connection_pool.make_connection()
        call_deadline.enter(0.0)
        try:
            with pytest.raises(redis.TimeoutError):
                connection.connect()
        finally:
            call_deadline.leave()


def test_a_release_that_does_not_take_our_options_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_redis()
    monkeypatch.setattr(redis, "__version__", "5.3.1")
    with pytest.raises(ConfigurationError, match=r"redis 5\.3\.1 is too old"):
        require_redis()
    oldest = ".".join(map(str, OLDEST))
    assert any(line.startswith(f"redis>={oldest};") for line in requires("mks-hardening") or ())


COMMANDS: list[tuple[object, ...]] = [
    ("PING",),
    ("GET", "name"),
    (b"GET", b"\xff\x00"),
    ("SET", "\u691c\u7d22", "\u7d50\u679c", "PX", 1500),
    ("INCRBYFLOAT", "total", 0.1, 1e300, float("inf"), -0.0, 10**30),
    ("SENTINEL MASTERS",),
    ("SET", "bytes", memoryview(b"\r\nview")),  # redis-py 7.3 rejects a bytearray
    ("SET", "empty", "", b""),
]


@pytest.mark.parametrize("hiredis", [True, False])
@pytest.mark.parametrize("kind", [redis.Connection, redis.asyncio.Connection])
def test_commands_are_encoded_as_redis_py_encodes_them(
    kind: Any, hiredis: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hiredis:
        monkeypatch.setitem(sys.modules, "hiredis", None)
    encoded, connection = command_encoder(), kind(driver_info=None)
    for command in COMMANDS:
        assert b"".join(encoded(connection, command)) == b"".join(connection.pack_command(*command)), command


@pytest.mark.parametrize("kind", [redis.Connection, redis.asyncio.Connection])
@pytest.mark.parametrize(
    ("wrong", "error"), [(None, redis.DataError), (True, redis.DataError), ("\ud800", UnicodeEncodeError)]
)
def test_arguments_that_redis_cannot_store_raise_the_same_error(
    kind: Any, wrong: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        command_encoder()(kind(driver_info=None), ("SET", "name", wrong))
