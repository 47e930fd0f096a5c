"""Hosts whose clocks differ: none keeps a session alive, and none ends it for the others."""

from __future__ import annotations

from typing import Any

import pytest

import wsgi_session_apps as apps
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session

HOUR, DAY = 3600.0, 86400.0


class Host:
    """One web server with a clock of its own over the store of all."""

    def __init__(self, store: Any, *, ahead: float) -> None:
        self.clock = FrozenClock()
        self.clock.step_wall(ahead)
        self.expired: list[str] = []
        self.app = SessionTimeoutMiddleware(
            apps.bare([]),
            store=store,
            idle_timeout=1800,
            absolute_timeout=28800,
            passive_paths=["/poll"],
            clock=self.clock,
            on_expired=lambda record, reason: self.expired.append(reason),
        )
        self.browser = apps.Browser(self.app)

    def status(self, cookies: dict[str, str], path: str = "/page") -> int:
        return int(self.browser.get(path, cookies=cookies).status)


class Hosts:
    def __init__(self, **ahead: float) -> None:
        self.store = MemorySessionStore()
        self.by_name = {name: Host(self.store, ahead=seconds) for name, seconds in ahead.items()}

    def __getitem__(self, name: str) -> Host:
        return self.by_name[name]

    def advance(self, seconds: float) -> None:
        for host in self.by_name.values():
            host.clock.advance(seconds)

    def sign_in(self, name: str) -> dict[str, str]:
        self[name].browser.get("/sign-in")
        return dict(self[name].browser.cookies)


def test_a_visit_to_a_host_one_day_ahead_does_not_prolong_the_idle_limit() -> None:
    hosts = Hosts(right=0, ahead=600)
    cookies = hosts.sign_in("right")
    hosts["ahead"].clock.step_wall(DAY)
    hosts["ahead"].app._gate.lookup.store.touch(  # as that host would, had it seen the session before
        next(iter(hosts.store._records)),
        seen_at=hosts["ahead"].clock.time(),
        expires_at=hosts["ahead"].clock.time(),
    )
    hosts.advance(10)
    assert hosts["right"].status(cookies) == 200
    for _ in range(5):
        hosts.advance(359)
        assert hosts["right"].status(cookies, "/poll") == 200
    hosts.advance(5)
    assert hosts["right"].status(cookies, "/poll") == 401
    assert hosts["right"].expired == ["idle"]


@pytest.mark.parametrize(("limit", "step"), [("idle", 1800.0), ("absolute", 600.0)])
def test_a_session_begun_on_a_host_one_day_ahead_ends_elsewhere_in_time(limit: str, step: float) -> None:
    hosts = Hosts(right=0, ahead=DAY)
    cookies = hosts.sign_in("ahead")
    assert hosts["right"].status(cookies) == 200
    visits = 1 if limit == "idle" else 47
    for _ in range(visits - 1):
        hosts.advance(step)
        assert hosts["right"].status(cookies) == 200
    hosts.advance(step)
    if limit == "absolute":
        assert hosts["right"].status(cookies) == 200
        hosts.advance(step)
    assert hosts["right"].status(cookies) == 401
    assert hosts["right"].expired == [limit]


@pytest.mark.parametrize("ahead", [HOUR, DAY])
def test_a_host_that_is_ahead_ends_the_session_for_itself_only(ahead: float) -> None:
    hosts = Hosts(right=0, ahead=ahead)
    cookies = hosts.sign_in("right")
    refused = hosts["ahead"].browser.get("/page", cookies=cookies)
    assert refused.status == 401
    # The browser asks another host next time: there the session lives.
    assert [field for field in refused.headers if field[0] == "Set-Cookie"] == []
    assert hosts["ahead"].expired == []
    assert hosts["right"].status(cookies) == 200


def test_a_host_that_knew_the_session_takes_the_cookie_of_an_ended_one_back() -> None:
    hosts = Hosts(right=0)
    cookies = hosts.sign_in("right")
    hosts.advance(1900)
    refused = hosts["right"].browser.get("/page", cookies=cookies)
    assert any(name == "Set-Cookie" and "Max-Age=0" in value for name, value in refused.headers)


def test_clocks_that_differ_by_less_than_a_second_change_nothing() -> None:
    hosts = Hosts(right=0, ahead=0.9)
    cookies = hosts.sign_in("ahead")
    assert hosts["right"].status(cookies) == 200
    rotated = hosts["right"].browser
    rotated.cookies = dict(cookies)
    rotated.get("/rotate")
    assert hosts["right"].status(cookies) == 200  # under way at the rotation
    hosts.advance(1801)
    assert hosts["right"].status(dict(rotated.cookies)) == 401


@pytest.mark.parametrize("own_clock", [True, False])
def test_who_ends_a_session_for_all(own_clock: bool) -> None:
    clock = FrozenClock()
    store = MemorySessionStore(clock=clock)
    expired: list[str] = []
    options: dict[str, Any] = {"clock": FrozenClock()} if own_clock else {}
    first = SessionTimeoutMiddleware(apps.bare([]), store=store)
    second = SessionTimeoutMiddleware(
        apps.bare([]), store=store, on_expired=lambda record, reason: expired.append(reason), **options
    )
    browser = apps.Browser(first)
    browser.get("/sign-in")
    cookies = dict(browser.cookies)
    clock.advance(1800)
    if own_clock:
        options["clock"].advance(1800)
    assert apps.Browser(second).get("/page", cookies=cookies).status == 401
    assert expired == ([] if own_clock else ["idle"])
    assert (store.load(next(iter(store._records))) or "").ended == ("" if own_clock else "idle")  # type: ignore[union-attr] # there is one


def test_a_stamp_from_ahead_counts_from_when_it_was_first_seen() -> None:
    hosts = Hosts(right=0, ahead=DAY)
    cookies = hosts.sign_in("ahead")
    for _ in range(3):  # polling is no activity, and does not move the first sight
        assert hosts["right"].status(cookies, "/poll") == 200
        hosts.advance(599)
    assert hosts["right"].status(cookies, "/poll") == 200
    hosts.advance(3)
    assert hosts["right"].status(cookies, "/poll") == 401
