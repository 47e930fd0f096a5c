"""A session that another request gives a new id in the middle of what one does with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import wsgi_session_apps as apps
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, SessionManager, SessionTimeoutMiddleware

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session


class MovingStore(MemorySessionStore):
    """Sessions go on under another id as soon as they were listed, so many times."""

    moves = 0

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        found = super().sessions(user_id, now=now)
        if self.moves:
            self.moves -= 1
            for record in found:
                self.rotate(record.key, f"{record.key}+", now=now)
        return found


class Site:
    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.store = MovingStore(clock=self.clock)
        self.manager = SessionManager(self.store)
        self.meanwhile: Callable[[], object] = lambda: None
        self.app = SessionTimeoutMiddleware(self._serve, store=self.store)
        self.browser = apps.Browser(self.app)
        self.did: Any = None

    def sign_in(self) -> SessionRecord:
        self.clock.advance(1)
        self.browser.cookies = {}
        self.browser.get("/start")
        return self.manager.sessions("alice")[-1]

    def move(self, key: str) -> None:
        assert self.store.rotate(key, f"{key}+", now=self.clock.time())

    def living(self) -> list[str]:
        self.store.moves = 0
        return [record.key for record in self.manager.sessions("alice")]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handle = environ["mks_hardening.session"]
        self.meanwhile()
        path = environ["PATH_INFO"]
        if path == "/start":
            handle.start("alice")
        else:
            self.did = getattr(handle, path[1:])()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_a_sign_out_ends_it_however_often_it_moves(moves: int) -> None:
    site = Site()
    record = site.sign_in()
    site.store.moves = moves
    site.meanwhile = lambda: site.move(record.key)
    site.browser.get("/end")
    assert site.did
    assert site.living() == []
    assert site.browser.cookies == {}


@pytest.mark.parametrize("by", [lambda record: record, lambda record: record.key], ids=["record", "key"])
@pytest.mark.parametrize("moves", [0, 1, 3])
def test_what_somebody_ends_in_a_list_may_have_moved_since(by: Callable[..., Any], moves: int) -> None:
    """Or who has stolen a session keeps it by having its id changed."""
    site = Site()
    record = site.sign_in()
    other = site.sign_in()
    site.move(record.key)
    site.move(f"{record.key}+")
    site.store.moves = moves
    assert site.manager.end(by(record))
    assert [key.rstrip("+") for key in site.living()] == [other.key]
    assert not site.manager.end(by(record))
    assert not site.manager.end("unknown")
