"""While the store is away, what was ended in this process is not believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import wsgi_session_apps as apps
from mks_hardening._edge.session import ended_sessions as _ended_sessions
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, SessionManager, SessionTimeoutMiddleware
from wsgi_session_corpus import SwitchedStore

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session


class Site:
    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.memory = MemorySessionStore(clock=self.clock)
        self.store: Any = SwitchedStore(self.memory)
        self.app = SessionTimeoutMiddleware(apps.bare([]), store=self.store, outage_grace=60)
        self.browser = apps.Browser(self.app)
        # Another store object over the same sessions, as a settings page or a command would make it.
        self.manager = SessionManager(self.memory)

    def cookies(self) -> dict[str, str]:
        self.browser.cookies = {}
        self.browser.get("/sign-in")
        return dict(self.browser.cookies)

    def status(self, cookies: dict[str, str]) -> int:
        return int(self.browser.get("/page", cookies=cookies).status)


ENDS: dict[str, Callable[[Site, SessionRecord], object]] = {
    "end_user": lambda site, record: site.manager.end_user(record.user_id),
    "end": lambda site, record: site.manager.end(record),
    "end by key": lambda site, record: site.manager.end(record.key),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_manager_ends_the_grace_too(end: str) -> None:
    site = Site()
    cookies = site.cookies()
    assert site.status(cookies) == 200
    (record,) = site.manager.sessions("alice")
    ENDS[end](site, record)
    site.store.away = True
    assert site.status(cookies) == 503


def test_who_signs_in_again_has_a_grace_again() -> None:
    site = Site()
    site.cookies()
    site.manager.end_user("alice")
    cookies = site.cookies()
    site.store.away = True
    assert site.status(cookies) == 200


def test_a_look_up_that_races_with_a_sign_out_is_not_believed() -> None:
    site = Site()
    cookies = site.cookies()
    load = site.memory.load

    class Slow:
        """Its answer is from before the sign-out, and comes after it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(site.memory, name)

        def load(self, key: str, /) -> SessionRecord | None:
            record = load(key)
            site.store.store = site.memory
            site.browser.cookies = dict(cookies)
            site.browser.get("/sign-out")
            return record

    site.store.store = Slow()
    assert site.status(cookies) == 200
    site.store.away = True
    assert site.status(cookies) == 503


def test_end_others_spares_this_one() -> None:
    site = Site()
    others, mine = site.cookies(), site.cookies()
    site.clock.advance(1)
    site.browser.cookies = mine
    site.browser.get("/end-others")
    site.store.away = True
    assert (site.status(mine), site.status(others)) == (200, 503)


def test_the_memory_of_disabled_users_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ended_sessions, "_MAX_ENDS", 10)
    ends = _ended_sessions.EndedSessions()
    for number in range(25):
        ends.record_session(f"k{number}")
        ends.record_user(f"u{number}")
        assert len(ends._keys) + len(ends._users) <= 10
    assert not ends.is_unaffected("k0", "u0", 0)


@pytest.mark.parametrize("kept", [True, False])
def test_one_end_does_not_cover_up_an_earlier_one(kept: bool) -> None:
    ends = _ended_sessions.EndedSessions()
    before = ends.count
    ends.record_user("alice")
    ends.record_user("alice", keep="k" if kept else None)
    assert not ends.is_unaffected("k", "alice", before)
    assert ends.is_unaffected("k", "alice", ends.count)
    assert ends.is_unaffected("k", "alice", before + 1) == kept


def test_the_memory_of_ends_is_bounded_and_forgets_on_the_safe_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ended_sessions, "_MAX_ENDS", 10)
    ends = _ended_sessions.EndedSessions()
    before = ends.count
    for number in range(11):
        ends.record_session(f"k{number}")
    assert len(ends._keys) == 0
    assert not ends.is_unaffected("never ended", "bob", before)
    assert ends.is_unaffected("never ended", "bob", ends.count)


def test_a_session_that_the_store_has_lost_is_not_believed_later() -> None:
    site = Site()
    cookies = site.cookies()
    site.memory._records.clear()
    assert site.status(cookies) == 401
    site.store.away = True
    assert site.status(cookies) == 503


# --- what another process did, of which this one knows from the store alone


def key_of_cookies(site: Site) -> str:
    (record,) = site.manager.sessions("alice")
    return record.key


def test_a_session_that_was_found_ended_is_not_believed_later() -> None:
    site = Site()
    cookies = site.cookies()
    site.memory.end(key_of_cookies(site), reason="revoked")
    assert site.status(cookies) == 401
    site.store.away = True
    assert site.status(cookies) == 503


class Interfering:
    """Something happens to the session between the look-up and the record of the activity."""

    def __init__(self, site: Site, change: Callable[[str], object]) -> None:
        self.site, self.change = site, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.site.memory, name)

    def touch(self, key: str, /, **times: float) -> bool:
        self.site.store.store = self.site.memory
        self.change(key)
        return self.site.memory.touch(key, **times)


CHANGES: dict[str, tuple[Callable[[MemorySessionStore, str], object], int]] = {
    "ended": (lambda store, key: store.end(key, reason="revoked"), 401),
    "forgotten": (lambda store, key: store._records.pop(key), 401),
    "rotated": (lambda store, key: store.rotate(key, "new", now=store.clock.time()), 200),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_look_up_and_record(change: str) -> None:
    site = Site()
    cookies = site.cookies()
    site.clock.advance(20)
    alter, status = CHANGES[change]
    site.store.store = Interfering(site, lambda key: alter(site.memory, key))
    assert site.status(cookies) == status
    site.store.away = True
    assert site.status(cookies) == 503


def test_polling_during_an_outage_does_not_keep_alive() -> None:
    site = Site()
    app = SessionTimeoutMiddleware(
        apps.bare([]), store=site.store, idle_timeout=100, outage_grace=1000, passive_paths=["/poll"]
    )
    browser = apps.Browser(app)
    browser.get("/sign-in")
    site.store.away = True
    cookies = dict(browser.cookies)
    for path, status in (("/poll", 200), ("/page", 200), ("/poll", 200), ("/poll", 200), ("/poll", 401)):
        site.clock.advance(45)
        assert browser.get(path, cookies=cookies).status == status, path


def test_a_refresh_of_a_session_that_was_ended_leaves_nothing_to_believe() -> None:
    site = Site()
    cookies = site.cookies()
    key = key_of_cookies(site)
    refreshed: list[float] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if not refreshed:
            site.memory.end(key, reason="revoked")
            refreshed.append(environ["mks_hardening.session"].refresh())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    middleware = SessionTimeoutMiddleware(app, store=site.store, outage_grace=60)
    apps.Browser(middleware).get("/page", cookies=cookies)
    assert refreshed == [0.0]
    site.store.away = True
    assert apps.Browser(middleware).get("/page", cookies=cookies).status == 503


def test_a_sign_out_by_the_loser_of_a_rotation_ends_the_grace_of_the_new_id() -> None:
    site = Site()
    old = site.cookies()
    site.browser.get("/rotate")
    new = dict(site.browser.cookies)
    assert site.status(new) == 200
    site.browser.cookies = dict(old)
    site.browser.get("/sign-out")
    site.store.away = True
    assert site.status(new) == 503


@pytest.mark.parametrize("result", [True, False])
def test_an_end_by_time_is_told_where_somebody_listens(
    result: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    heard: list[str] = []
    listener = (lambda record, reason: heard.append(reason)) if result else None
    app = SessionTimeoutMiddleware(apps.bare([]), store=site.store, on_expired=listener)
    cookies = site.cookies()
    site.clock.advance(1800)
    assert apps.Browser(app).get("/page", cookies=cookies).status == 401
    assert heard == (["idle"] if result else [])
    assert caplog.records == []
