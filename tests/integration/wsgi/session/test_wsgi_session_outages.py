from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wsgi_session_apps as apps
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import RedisSessionStore, SessionManager, SessionTimeoutMiddleware
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.redis_server import RedisServer
from wsgi_scripted import environ_of, serve

pytestmark = pytest.mark.redis


class Site:
    """A bare application over Redis, seen by one browser."""

    def __init__(self, url: str, **options: Any) -> None:
        self.log: apps.Log = []
        self.clock = FrozenClock()
        self.store = RedisSessionStore(url, store_budget=options.pop("store_budget", 1.0))
        options.setdefault("outage_grace", 60)
        self.app = SessionTimeoutMiddleware(
            apps.bare(self.log), store=self.store, clock=self.clock, public_paths=["/about"], **options
        )
        self.browser = apps.Browser(self.app)
        self.manager = SessionManager(self.store, clock=self.clock)


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(url: str, **options: Any) -> Site:
        made.append(Site(url, **options))
        return made[-1]

    yield make
    for site in made:
        site.store.close()


@pytest.mark.parametrize("fault", ["refuse", "black_hole", "corrupt"])
def test_an_outage_signs_nobody_out_and_lets_nobody_in(
    make_site: Callable[..., Site], redis_url: str, fault_proxy: FaultProxy, fault: Any
) -> None:
    site = make_site(fault_proxy.through(redis_url), store_budget=0.2)
    wait_until(lambda: site.browser.get("/sign-in").status == 200, what="a session, on a busy machine too")
    cookies = dict(site.browser.cookies)
    if fault == "refuse":
        fault_proxy.refuse()
    else:
        fault_proxy.mode = fault
    for _ in range(5):
        assert site.browser.get("/page").body == b"alice None boss"
    assert site.browser.get("/sign-out").status == 503
    assert site.browser.get("/rotate").status == 503
    assert site.browser.get("/sign-in", cookies={}).status == 503
    assert site.browser.get("/page", cookies={}).status == 200
    assert site.browser.get("/about").body == b"alice None boss"
    site.clock.advance(60)
    site.log.clear()
    answer = site.browser.get("/page")
    assert (answer.status, answer.header("Set-Cookie")) == (503, None)
    assert int(answer.header("Retry-After")) >= 1
    assert site.log == []
    assert site.browser.get("/about").body == b"None None None"
    assert site.browser.cookies == cookies
    fault_proxy.heal()
    wait_until(lambda: site.browser.get("/page").body == b"alice None boss", what="the session")


def test_a_frozen_server_is_an_outage_too(make_site: Callable[..., Site], redis_server: RedisServer) -> None:
    site = make_site(redis_server.url, store_budget=0.2)
    wait_until(lambda: site.browser.get("/sign-in").status == 200, what="a session, on a busy machine too")
    redis_server.pause()
    try:
        assert site.browser.get("/page").body == b"alice None boss"
        site.clock.advance(61)
        assert site.browser.get("/page").status == 503
    finally:
        redis_server.resume()
    wait_until(lambda: site.browser.get("/page").status == 200, what="the session")


def test_a_server_that_lost_everything_ends_sessions(
    make_site: Callable[..., Site], redis_server: RedisServer
) -> None:
    site = make_site(redis_server.url)
    site.browser.get("/sign-in")
    redis_server.kill()
    assert site.browser.get("/page").status == 200
    redis_server.start()
    wait_until(site.store.ping, what="Redis")
    answer = site.browser.get("/page")
    assert (answer.status, answer.header("X-Session-Timeout-Reason")) == (401, "revoked")


@pytest.mark.parametrize("reason", ["READONLY", "OOM"])
def test_a_server_that_refuses_writes(
    make_site: Callable[..., Site], redis_server: RedisServer, reason: str
) -> None:
    site = make_site(redis_server.url)
    site.browser.get("/sign-in")
    if reason == "READONLY":
        redis_server.command("REPLICAOF", "127.0.0.1", "1")
    else:
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
    site.clock.advance(100)
    assert site.browser.get("/page").status == 200
    assert site.browser.get("/sign-in", cookies={}).status == 503


@pytest.mark.parametrize(("path", "sessions"), [("/sign-in", 1), ("/rotate", 1), ("/sign-out", 0)])
def test_one_lost_reply_neither_doubles_nor_loses(
    make_site: Callable[..., Site],
    redis_url: str,
    fault_proxy: FaultProxy,
    path: str,
    sessions: int,
) -> None:
    site = make_site(fault_proxy.through(redis_url), max_sessions=3)
    if path != "/sign-in":
        site.browser.get("/sign-in")
    assert site.browser.get(path, cookies={}).status == 200  # the server knows the script now
    site.manager.end_user("alice")
    site.browser.cookies.clear()
    if path != "/sign-in":
        site.browser.get("/sign-in")
    fault_proxy.lose_reply(matching=b"EVALSHA")
    assert site.browser.get(path).status == 200
    assert len(site.manager.sessions("alice")) == sessions
    if sessions:
        assert site.browser.get("/page").body == b"alice None boss"
    else:
        assert site.browser.cookies == {}


def test_processes_that_sign_in_at_once_do_not_get_past_the_limit(
    make_site: Callable[..., Site], redis_url: str
) -> None:
    sites = [make_site(redis_url, max_sessions=2, store_budget=10.0) for _ in range(4)]
    barrier = threading.Barrier(8)
    statuses: list[int] = []

    def sign_in(site: Site) -> None:
        barrier.wait()
        for _ in range(5):
            served = serve(site.app, environ_of({"path": "/sign-in"}))
            statuses.append(int(served.status[:3]))

    threads = [threading.Thread(target=sign_in, args=(sites[number % 4],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    assert len(sites[0].manager.sessions("alice")) == 2


def test_requests_in_flight_do_not_revive_a_session(make_site: Callable[..., Site], redis_url: str) -> None:
    site = make_site(redis_url, write_interval=0, store_budget=10.0)
    other = make_site(redis_url, write_interval=0, store_budget=10.0)
    for turn in range(10):
        site.browser.get("/sign-in")
        cookie = "; ".join(f"{name}={value}" for name, value in site.browser.cookies.items())
        site.clock.advance(1)
        other.clock.advance(1)
        barrier = threading.Barrier(5)

        def visit(app: Any, path: str, barrier: threading.Barrier = barrier, cookie: str = cookie) -> None:
            barrier.wait()
            environ = environ_of({"path": path})
            environ["HTTP_COOKIE"] = cookie
            serve(app, environ)

        paths = [("/page", site), ("/page", other), ("/page", site), ("/sign-out", other), ("/page", other)]
        threads = [threading.Thread(target=visit, args=(where.app, path)) for path, where in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(site.manager.sessions("alice")) == [], f"turn {turn}"
        assert site.browser.get("/page").status == 401


def test_one_round_trip_for_a_page(make_site: Callable[..., Site], redis_server: RedisServer) -> None:
    site = make_site(redis_server.url)
    site.browser.get("/sign-in")
    redis_server.command("CONFIG", "RESETSTAT")
    for _ in range(20):
        site.clock.advance(0.4)
        site.browser.get("/page")
    assert redis_server.command_count("hmget") == 20
    assert redis_server.command_count("evalsha") == 0
    site.clock.advance(10)
    site.browser.get("/page")
    assert redis_server.command_count("evalsha") + redis_server.command_count("eval") <= 2
