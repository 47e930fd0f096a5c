"""Web servers whose clocks differ go by the clock of the Redis server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import wsgi_session_apps as apps
from mks_hardening._edge.session.stores import server_clock as _server_clock
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import RedisSessionStore, SessionManager, SessionTimeoutMiddleware
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis
HOUR, DAY = 3600.0, 86400.0


class Host:
    """A web server whose machine has a wrong clock."""

    def __init__(self, url: str, *, ahead: float) -> None:
        self.machine = FrozenClock(time.time() + ahead)
        self.expired: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_server_clock.ServerClock.__init__, "__defaults__", (self.machine,))
            self.store = RedisSessionStore(url, store_budget=5.0)
        self.app = SessionTimeoutMiddleware(
            apps.bare([]), store=self.store, on_expired=lambda record, reason: self.expired.append(reason)
        )
        self.browser = apps.Browser(self.app)


@pytest.fixture
def hosts(redis_server: RedisServer) -> Iterator[dict[str, Host]]:
    made = {
        "right": Host(redis_server.url, ahead=0),
        "hour ahead": Host(redis_server.url, ahead=HOUR),
        "day ahead": Host(redis_server.url, ahead=DAY),
        "day behind": Host(redis_server.url, ahead=-DAY),
    }
    yield made
    for host in made.values():
        host.store.close()


@pytest.mark.parametrize("first", ["right", "hour ahead", "day ahead", "day behind"])
def test_all_agree_about_who_lives_and_when(hosts: dict[str, Host], first: str) -> None:
    hosts[first].browser.get("/sign-in")
    cookies = dict(hosts[first].browser.cookies)
    for _ in range(2):
        for name, host in hosts.items():
            assert host.browser.get("/page", cookies=cookies).body == b"alice None boss", name
            assert host.expired == []
    for host in hosts.values():
        (record,) = SessionManager(host.store).sessions("alice")
        assert abs(record.created_at - time.time()) < 60
    for host in hosts.values():
        host.machine.advance(1800)  # only the time that passes is taken from the machine
    for host in reversed(hosts.values()):
        assert host.browser.get("/page", cookies=cookies).status == 401
    assert [reason for host in hosts.values() for reason in host.expired] == ["idle"]


def test_a_minute_later_the_server_is_asked_again_in_the_same_round_trip(redis_server: RedisServer) -> None:
    host = Host(redis_server.url, ahead=DAY)
    host.browser.get("/sign-in")
    redis_server.command("CONFIG", "RESETSTAT")
    for seconds, asked in ((59.9, 0), (0.2, 1), (59.0, 1), (1.1, 2)):
        host.machine.advance(seconds)
        host.store.load("k")
        assert redis_server.command_count("time") == asked
    assert redis_server.command_count("hmget") == 4
    host.store.close()


def test_a_clock_that_was_given_is_the_clock(redis_url: str) -> None:
    clock = FrozenClock()
    with RedisSessionStore(redis_url, clock=clock) as store:
        assert store.clock is clock


def test_the_twin_reads_it_too(redis_url: str) -> None:
    async def play() -> None:
        store = RedisSessionStore(redis_url, store_budget=2.0)
        clock: Any = store.clock
        assert not clock.is_set
        await store.asettle()
        assert clock.is_set
        assert abs(clock.time() - time.time()) < 60
        await store.aclose()

    asyncio.run(play())


def test_before_the_first_answer_nobody_is_signed_in_by_a_wrong_clock(redis_server: RedisServer) -> None:
    host = Host(redis_server.url, ahead=DAY)
    redis_server.kill()
    assert host.browser.get("/sign-in").status == 503
    assert host.browser.get("/page", cookies={"__Host-mks-session": "A" * 43}).status == 503
    redis_server.start()
    wait_until(host.store.ping, what="Redis")
    assert host.browser.get("/sign-in").status == 200
    (record,) = SessionManager(host.store).sessions("alice")
    assert abs(record.created_at - time.time()) < 60
    host.store.close()
