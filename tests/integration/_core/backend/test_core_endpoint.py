"""One backend per server and process, whoever uses it; and clients that are handed in."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from redis import asyncio as aredis

from mks_hardening._core.backend import endpoint as endpoints
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.resilience.budget import request_budget
from mks_hardening.events import BackendFailed, BreakerChanged, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.testing import FlakyRedis, FrozenClock
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.redis_groups import Sentinel
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    add_observer(seen.append)
    yield seen
    remove_observer(seen.append)


def fails(client: RedisClient, *command: Any) -> str:
    with pytest.raises(BackendUnavailableError) as caught:
        client.call(*(command or ("GET", "a")), idempotent=True)
    return caught.value.reason


def connections(server: RedisServer) -> int:
    """How many the server has besides the one that asks."""
    return len(server.command("CLIENT", "LIST").splitlines()) - 1


def blocked(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])  # type: ignore[index]


# --- one backend -----------------------------------------------------------------------------


def test_one_outage_is_one_record_going_and_one_coming(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, events: list[Any]
) -> None:
    users = [
        RedisClient(redis_server.url, name="cache"),
        RedisClient(redis_server.url_for(database=1), name="sessions"),
        RedisClient(redis_server.url, name="limits", store_budget=0.2),
        RedisClient(redis.Redis.from_url(redis_server.url), name="alerts"),
    ]
    for user in users:
        wait_until(user.ping)
    with caplog.at_level(logging.WARNING, logger="mks_hardening.breaker"):
        redis_server.kill()
        for user in users * 3:
            assert fails(user) in ("refused", "reset", "open")
        redis_server.start()
        wait_until(lambda: all(user.ping() for user in users), timeout=3)
    address = f"127.0.0.1:{redis_server.port}"
    assert [(record.levelname, record.__dict__["endpoint"]) for record in caplog.records] == [
        ("ERROR", address),
        ("WARNING", address),
    ]
    changes = [event for event in events if isinstance(event, BreakerChanged)]
    assert [(change.after, change.endpoint) for change in changes] == [("open", address), ("closed", address)]
    failures = [event for event in events if isinstance(event, BackendFailed)]
    assert {failure.endpoint for failure in failures} == {address}
    for user in users:
        user.close()


def test_users_of_one_database_share_the_connections(redis_server: RedisServer) -> None:
    before = connections(redis_server)
    users = [RedisClient(redis_server.url) for _ in range(5)]
    for user in users:
        wait_until(user.ping)
    assert connections(redis_server) == before + 1
    users.pop().close()
    wait_until(users[0].ping)
    for user in users:
        user.close()
    wait_until(lambda: connections(redis_server) == before)


def test_other_credentials_or_clocks_are_another_backend(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all")
    wrong = RedisClient(redis_server.url_for(user="app", password="no"), store_budget=5)
    right = RedisClient(redis_server.url_for(user="app", password="pw"), store_budget=5)
    frozen = RedisClient(redis_server.url, store_budget=5, clock=FrozenClock())
    assert fails(wrong) == "auth"
    assert fails(wrong) == "open"
    assert right.ping()
    assert frozen.ping()
    for client in (wrong, right, frozen):
        client.close()


def test_a_client_of_ours_may_be_handed_in(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url_for(database=2), store_budget=5) as first:
        with RedisClient(first, name="second", store_budget=1) as second:
            second.call("SET", "a", "1")
        assert fails(second) == "closed"
        assert first.call("GET", "a") == b"1"
    with pytest.raises(ConfigurationError):
        RedisClient(first)


def test_one_that_is_dropped_without_close_leaves_nothing_behind(redis_server: RedisServer) -> None:
    before = connections(redis_server)
    client = RedisClient(redis_server.url, store_budget=5)
    assert client.ping()
    breaker = client._guard.breaker
    breaker.failed("refused")
    del client
    gc.collect()
    wait_until(lambda: connections(redis_server) == before)
    assert breaker.run_probe() is None
    left = [target for target, _ in endpoints._registry.endpoints if f":{redis_server.port}" in str(target)]
    assert left == []


def test_left_over_budget_is_not_blamed_on_the_server(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, name="sessions") as client:
        wait_until(client.ping)
        redis_server.pause()
        for _ in range(6):
            with request_budget(0.02):
                assert fails(client) == "timeout"
        assert client._guard.breaker.phase == "closed"
        redis_server.resume()
        assert client.ping()
        redis_server.pause()
        for _ in range(3):
            assert fails(client) == "timeout"
        assert fails(client) == "open"


def test_threads_beyond_the_pool_wait_and_do_not_open_the_breaker(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    monkeypatch.setattr("mks_hardening._core.backend.redis_connect.MAX_CONNECTIONS", 2)
    with RedisClient(redis_server.url, store_budget=5) as client:
        hold = [threading.Thread(target=client.call, args=("BLPOP", f"gate:{n}", 4)) for n in range(2)]
        for thread in hold:
            thread.start()
        wait_until(lambda: blocked(redis_server) == 2)
        with RedisClient(client, store_budget=0.03) as hurried:
            assert [fails(hurried) for _ in range(4)] == ["pool"] * 4
            assert hurried._guard.breaker.phase == "closed"
        waiting = threading.Thread(target=client.call, args=("SET", "a", "1"))
        waiting.start()
        for number in range(2):
            redis_server.command("RPUSH", f"gate:{number}", "go")
        for thread in (*hold, waiting):
            thread.join(5)
        assert client.call("GET", "a") == b"1"
    assert not [event for event in events if isinstance(event, BreakerChanged)]


def test_more_threads_than_connections_leave_a_healthy_server_alone(
    redis_server: RedisServer, events: list[Any]
) -> None:
    answered: list[int] = []
    with RedisClient(redis_server.url) as client:
        wait_until(client.ping)
        start = threading.Barrier(230)

        def work() -> None:
            start.wait(30)
            answered.extend(1 for _ in range(10) if client.ping())

        threads = [threading.Thread(target=work) for _ in range(230)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answered
        assert client._guard.breaker.phase == "closed"
    assert not [event for event in events if isinstance(event, BreakerChanged)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_with_the_locks_held_has_its_own_backend(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, store_budget=5) as client:
        assert client.ping()
        pool = client._lease.client().connection_pool
        with endpoints._registry.lock, client._guard.breaker._lock, pool._lock:
            child = os.fork()
        if child == 0:
            client.call("SET", "who", "child")
            with RedisClient(redis_server.url, store_budget=5) as second:
                good = second.call("GET", "who") == b"child"
            os._exit(0 if good and client._lease.client() is second._lease.client() else 1)
        assert client.ping()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.ping()


def test_two_loops_and_a_thread_share_the_breaker_and_nothing_else(redis_server: RedisServer) -> None:
    before, others = connections(redis_server), set(endpoints._registry.endpoints)

    async def main() -> None:
        first, second = (RedisClient(redis_server.url, store_budget=5) for _ in range(2))
        assert await first.acall("SET", "a", "1") == b"OK"
        await asyncio.to_thread(second.call, "SET", "a", "2")
        await first.aclose()
        assert await second.acall("GET", "a") == b"2"
        await second.aclose()

    for _ in range(2):
        asyncio.run(main())
    wait_until(lambda: connections(redis_server) == before)
    assert endpoints._registry.endpoints.keys() <= others


def test_sentinels_with_tls_and_accounts_of_their_own(
    make_redis: Callable[..., RedisServer], certificates: Any, tmp_path: Path
) -> None:
    primary = make_redis(certificates=certificates, password="hunter2", options={"tls-replication": "yes"})
    sentinel = Sentinel(
        tmp_path / "sentinel",
        certificates=certificates,
        password="hunter3",
        options={"tls-replication": "yes"},
    )
    sentinel.start()
    try:
        sentinel.command("SENTINEL", "MONITOR", "mks", primary.host, primary.port, 1)
        sentinel.command("SENTINEL", "SET", "mks", "auth-pass", "hunter2")
        wait_until(lambda: sentinel.command("SENTINEL", "CKQUORUM", "mks"))
        place = f"127.0.0.1:{sentinel.port}/mks/1?ca_file={certificates.ca_file}"
        url = f"rediss+sentinel://:hunter2@{place}&sentinel_password=hunter3"
        tls = {"ssl": True, "ssl_ca_certs": str(certificates.ca_file)}
        group = redis.sentinel.Sentinel(
            [("127.0.0.1", sentinel.port)], sentinel_kwargs={"password": "hunter3", **tls}
        )

        async def main(client: RedisClient) -> None:
            assert await client.acall("GET", "a") == b"1"
            await client.aclose()

        for source in (url, group.master_for("mks", password="hunter2", db=1, **tls)):
            client = RedisClient(source, store_budget=5)
            assert client.call("SET", "a", "1") == b"OK"
            asyncio.run(main(client))
        with RedisClient(f"rediss+sentinel://:hunter2@{place}", store_budget=5) as nobody:
            assert fails(nobody) in ("auth", "refused")
        for asked in group.sentinels:
            asked.close()
    finally:
        sentinel.close()


# --- clients that are handed in --------------------------------------------------------------


HANDED_IN: dict[str, Callable[[int], Any]] = {
    "Redis": lambda port: redis.Redis(port=port, decode_responses=True),
    "from_url": lambda port: redis.Redis.from_url(f"redis://127.0.0.1:{port}/0", socket_timeout=30),
    "blocking pool": lambda port: redis.Redis(connection_pool=redis.BlockingConnectionPool(port=port)),
    "asyncio": lambda port: aredis.Redis(port=port),
}


@pytest.mark.parametrize("make", HANDED_IN.values(), ids=HANDED_IN)
def test_a_handed_in_client_keeps_our_promises(
    make: Callable[[int], Any], redis_server: RedisServer, fault_proxy: FaultProxy
) -> None:
    with RedisClient(make(fault_proxy.port), store_budget=5) as client:
        client.call("SET", "n", 5)
        assert client.call("GET", "n") == b"5"
        fault_proxy.lose_reply(matching=b"INCR")
        assert fails_once(client, "INCR", "n") == "reset"
        assert redis_server.command("GET", "n") == b"6"
    with RedisClient(make(redis_server.port)) as client:
        wait_until(client.ping)
        redis_server.pause()
        reasons: list[str] = []
        asking = threading.Thread(target=lambda: reasons.append(fails(client)))
        asking.start()
        asking.join(4)  # redis-py's own rules take 25 s and more
        assert reasons == ["timeout"]


def fails_once(client: RedisClient, *command: Any) -> str:
    with pytest.raises(BackendUnavailableError) as caught:
        client.call(*command)
    return caught.value.reason


@pytest.mark.parametrize("make", [redis.Redis, aredis.Redis])
def test_a_handed_in_client_serves_both_worlds(make: Any, redis_server: RedisServer) -> None:
    async def main() -> None:
        client = RedisClient(make(port=redis_server.port), store_budget=5)
        assert await client.acall("SET", "a", "1") == b"OK"
        assert await asyncio.to_thread(client.call, "GET", "a") == b"1"
        await client.aclose()

    asyncio.run(main())


def test_tls_and_accounts_come_along(make_redis: Callable[..., RedisServer], certificates: Any) -> None:
    server = make_redis(certificates=certificates, password="hunter2")
    handed_in = redis.Redis(
        host="localhost",
        port=server.port,
        password="hunter2",
        ssl=True,
        ssl_ca_certs=str(certificates.ca_file),
        db=3,
    )
    with RedisClient(handed_in, store_budget=5) as client:
        assert client.call("SET", "a", "1") == b"OK"
        assert handed_in.get("a") == b"1"
        assert "hunter2" not in repr(client)
    handed_in.close()


@pytest.mark.parametrize(
    ("answered", "reason"),
    # Silent from the first handshake on, it cannot be told from a server without TLS.
    [(True, "timeout"), (False, "tls")],
)
def test_a_stopped_server_that_speaks_tls_is_bounded_too(
    make_redis: Callable[..., RedisServer], certificates: Any, answered: bool, reason: str
) -> None:
    server = make_redis(certificates=certificates)
    with RedisClient(f"{server.url}?ca_file={certificates.ca_file}") as client:
        if answered:
            wait_until(client.ping, what="a first answer")
            client._lease.client().connection_pool.disconnect()
        server.pause()
        reasons: list[str] = []
        asking = threading.Thread(target=lambda: reasons.append(fails(client)))
        asking.start()
        asking.join(4)
        assert reasons == [reason]
        server.resume()
        asking.join()


def test_a_credential_provider_comes_along(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(password="hunter2")
    provider = redis.UsernamePasswordCredentialProvider(password="hunter2")
    with RedisClient(redis.Redis(port=server.port, credential_provider=provider), store_budget=5) as client:
        assert client.ping()


def test_a_socket_file_comes_along(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(unix_socket=True)
    with RedisClient(redis.Redis(unix_socket_path=str(server.socket_path)), store_budget=5) as client:
        assert client.ping()


class Counting(redis.Redis):
    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*args, **options)


class OwnConnection(redis.Connection):
    pass


@pytest.mark.parametrize(
    "make",
    [
        Counting,
        lambda: redis.Redis.from_pool(redis.ConnectionPool(connection_class=OwnConnection)),
        lambda: redis.Redis.from_pool(redis.ConnectionPool(redis_connect_func=print)),
        lambda: redis.sentinel.Sentinel([("localhost", 1)]).slave_for("mks"),
        lambda: fakeredis.FakeRedis(decode_responses=True),
    ],
    ids=["overridden", "own connection", "connect hook", "replica", "decoding fake"],
)
def test_what_cannot_be_built_anew_is_refused_with_a_way_out(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError, match="pass the Redis URL instead"):
        RedisClient(make())


def test_a_fake_is_used_as_it_stands_and_gets_nothing_but_what_was_sent() -> None:
    clock = FrozenClock()
    flaky = FlakyRedis()
    with RedisClient(flaky, clock=clock) as client, RedisClient(flaky, clock=clock) as same:
        flaky.fail("refused", times=3)
        assert fails(client) == "refused"
        assert [fails(same) for _ in range(3)] == ["open"] * 3
        assert flaky.commands == ["GET"] * 3
        clock.advance(1.0)
        assert same.call("GET", "a") is None
        assert flaky.commands == ["GET"] * 4
