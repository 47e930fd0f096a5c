from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule

from asgi_bridge import ODD
from edge_shells import over
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import MemorySessionStore, SessionManager, SessionTimeoutMiddleware
from wsgi_scripted import environ_of, serve
from wsgi_session_corpus import SwitchedStore
from wsgi_session_machine import machine_of

TestMemoryStore = machine_of(MemorySessionStore).TestCase
TestMemoryStore.settings = settings(max_examples=60, stateful_step_count=40)

IDLE, ABSOLUTE, GRACE, WRITE, GRACE_OF_ROTATION = 100.0, 400.0, 20.0, 10.0, 10.0


class Session:
    """What must be true of one session; times are of the monotonic clock."""

    def __init__(self, user: str, now: float) -> None:
        self.user = user
        self.created = self.seen = now
        self.ended: float | None = None
        self.went_on_as: Session | None = None
        self.rotated: float | None = None

    @property
    def heir(self) -> Session:
        return self if self.went_on_as is None else self.went_on_as.heir

    def may_read(self, now: float) -> bool:
        """Requests may have been under way with this id when it was rotated away."""
        return (
            self.rotated is not None
            and now - self.rotated < GRACE_OF_ROTATION
            and self.heir.ended is None
            and not self.heir.over(now)
        )

    def over(self, now: float) -> bool:
        return now - self.seen >= IDLE or now - self.created >= ABSOLUTE

    def surely_alive(self, now: float) -> bool:
        return self.ended is None and now - self.seen < IDLE - WRITE and now - self.created < ABSOLUTE


class LifeMachine(RuleBasedStateMachine):
    """Two processes over one store, browsers, a wall clock that is set back, and outages."""

    shell = "wsgi"
    cookies: Bundle[str] = Bundle("cookies")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock()
        self.store: Any = SwitchedStore(MemorySessionStore())
        self.processes = [
            over(self.shell, SessionTimeoutMiddleware, in_thread=True)(
                self.application,
                store=self.store,
                idle_timeout=IDLE,
                absolute_timeout=ABSOLUTE,
                outage_grace=GRACE,
                write_interval=WRITE,
                passive_paths=["/poll"],
                clock=self.clock,
            )
            for _ in range(2)
        ]
        self.manager = SessionManager(self.store, clock=self.clock)
        self.sessions: dict[str, Session] = {}
        self.wanted: tuple[str, ...] = ()
        self.returned: Any = None

    def application(self, environ: Any, start_response: Any) -> list[bytes]:
        handle = environ["mks_hardening.session"]
        if self.wanted:
            name, *arguments = self.wanted
            self.returned = getattr(handle, name)(*arguments)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(handle.user_id).encode()]

    def ask(self, process: int, cookie: str | None, *wanted: str, path: str = "/") -> tuple[int, str, str]:
        self.wanted, self.returned = wanted, None
        environ = environ_of({"path": path})
        if cookie is not None:
            environ["HTTP_COOKIE"] = cookie
        served = serve(self.processes[process], environ)
        assert served.raised == ""
        new = [value.partition(";")[0] for name, value in served.headers if name == "Set-Cookie"]
        return int(served.status[:3]), served.body.decode(), new[0] if new else ""

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def alive_for_sure(self, cookie: str) -> bool:
        return not self.store.away and self.sessions[cookie].surely_alive(self.now)

    @rule(target=cookies, process=st.integers(0, 1), user=st.sampled_from(["alice", "bob"]))
    def sign_in(self, process: int, user: str) -> str:
        if self.store.away:
            assert self.ask(process, None, "start", user)[::2] == (503, "")
            return "__Host-mks-session=" + "A" * 43
        self.clock.advance(0.001)  # no two sign-ins of one user fall on the same reading of a real clock
        status, body, cookie = self.ask(process, None, "start", user)
        assert (status, body) == (200, user)
        assert cookie not in self.sessions
        self.sessions[cookie] = Session(user, self.now)
        return cookie

    @rule(process=st.integers(0, 1), cookie=cookies, passive=st.booleans())
    def visit(self, process: int, cookie: str, passive: bool) -> None:
        status, body, new = self.ask(process, cookie, path="/poll" if passive else "/")
        session = self.sessions.get(cookie)
        if session is None:
            assert status == (503 if self.store.away else 401)
            return
        if self.store.away:
            assert status in (200, 503)
            assert new == ""  # the browser keeps its cookie
            ended_lately = session.ended is None or self.now - session.ended < GRACE
            assert status == 503 or (ended_lately and not session.over(self.now))
        else:
            assert status in (200, 401)
            alive = session.ended is None and not session.over(self.now)
            assert status == 401 or alive or session.may_read(self.now)
            assert status == 200 or not session.surely_alive(self.now)
        if status == 200:
            assert body == session.user
            if not passive and session.rotated is None:
                session.seen = self.now
        elif status == 401 and session.ended is None:
            session.ended = self.now

    @rule(target=cookies, process=st.integers(0, 1), cookie=cookies)
    def rotate(self, process: int, cookie: str) -> str:
        sure = self.alive_for_sure(cookie) if cookie in self.sessions else False
        status, _, new = self.ask(process, cookie, "rotate")
        assert not sure or (status, self.returned) == (200, True)
        if not self.returned:
            return cookie
        session = self.sessions[cookie]
        assert session.ended is None
        assert not session.over(self.now)
        session.ended = session.rotated = self.now
        moved = session.went_on_as = self.sessions[new] = Session(session.user, self.now)
        moved.created = session.created
        return new

    @rule(process=st.integers(0, 1), cookie=cookies)
    def sign_out(self, process: int, cookie: str) -> None:
        sure = self.alive_for_sure(cookie) if cookie in self.sessions else False
        status, _, _ = self.ask(process, cookie, "end")
        assert not sure or (status, self.returned) == (200, True)
        if self.returned:
            self.sessions[cookie].heir.ended = self.now

    @rule(user=st.sampled_from(["alice", "bob"]))
    def user_is_disabled(self, user: str) -> None:
        if self.store.away:
            return
        self.manager.end_user(user)
        for session in self.sessions.values():
            if session.user == user and session.ended is None:
                session.ended = self.now

    @rule(seconds=st.floats(0.1, 60, allow_nan=False))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.floats(1, 10_000, allow_nan=False))
    def wall_clock_is_set_back(self, seconds: float) -> None:
        self.clock.step_wall(-seconds)

    @rule(away=st.booleans())
    def store_goes_or_comes(self, away: bool) -> None:
        self.store.away = away


TestLife = LifeMachine.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=50)


class ASGILifeMachine(LifeMachine):
    """The same life behind the ASGI middleware, with an application in a worker thread."""

    shell = ODD


TestASGILife = ASGILifeMachine.TestCase
TestASGILife.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
