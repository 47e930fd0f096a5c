"""Sessions that end: idle and absolute limits judged before the application runs, under any framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening._core.checks import choice, function, instance, offers, texts, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.web.environ_keys import REFUSAL_KEY, SESSION_KEY
from mks_hardening._core.web.paths import exemptions
from mks_hardening._core.web.wsgi_head import BufferedHead, holds_back, with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.wsgi._refusal_response import Refuser, shown
from mks_hardening.wsgi.refusals import Refusal
from mks_hardening.wsgi.session._cookie_header import CookieFilter, find_cookie, is_cookie_name
from mks_hardening.wsgi.session._lazy_body import LazyBody
from mks_hardening.wsgi.session._refusals import Answer, detail_of, redirect, refusal, seen_of, unavailable
from mks_hardening.wsgi.session._request_kind import is_part_of_a_page, wants_page
from mks_hardening.wsgi.session._response_headers import SessionResponseHeaders
from mks_hardening.wsgi.session._session_ids import ID_LENGTH, is_anonymous_id
from mks_hardening.wsgi.session._session_lookup import NOT_FOUND, FoundSession, SessionLookup, tell
from mks_hardening.wsgi.session._session_rules import REVOKED, ROTATED, SessionLimits
from mks_hardening.wsgi.session._sign_in_page import SignInPage, way_back
from mks_hardening.wsgi.session.session_cookie import SessionCookie
from mks_hardening.wsgi.session.session_handle import SessionHandle
from mks_hardening.wsgi.session.stores._one_process import watched

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening.protocols import Clock, SessionRecord, SessionStore
    from mks_hardening.wsgi.refusals import OnRefusal

__all__ = ["SessionTimeoutMiddleware"]

# Seconds: by so much a session may end too early for another process, which knows only what was written.
_LONGEST_WRITE_INTERVAL: Final = 10.0
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# They describe our words, which an application may replace by its own.
_OF_THE_BODY: Final = frozenset({"Content-Type", "Content-Length", "Cache-Control"})
_SITE_DATA: Final = ("cache", "clientHints", "cookies", "executionContexts", "prefetchCache", "storage", "*")


class SessionTimeoutMiddleware:
    """Ends sessions that were idle too long, lived too long or were revoked, before the application runs.

    The cookie holds a 256-bit id and nothing else; the store is the judge, so a cookie that is replayed after
    sign-out or expiry is dead, and after a rotation too, but for requests that were under way. A dead cookie gets
    401 as a problem document, or 303 to ``sign_in_url`` where a page is being opened; the answer says
    ``X-Session-Timeout-Reason``, takes the cookies back and is not stored. Requests without a cookie pass: who may
    see what is the application's business.

    The application finds a ``SessionHandle`` at ``environ["mks_hardening.session"]``.

    Args:
        app: the WSGI application.
        store: ``MemorySessionStore``, ``RedisSessionStore`` or your own.
        idle_timeout: seconds without activity after which a session ends (ASVS 7.3.1).
        absolute_timeout: seconds after sign-in at which it ends whatever happens (ASVS 7.3.2).
        warn_before: inside the last so many seconds answers carry ``X-Session-Expires-In``; 0 never.
        cookie: name and attributes of the cookie.
        public_paths: work with a dead cookie too, as does the path of ``sign_in_url``; the application then sees
            neither that cookie nor those of ``strip_cookies``. A trailing slash means the folder. What a page
            loads to be looked at (style sheets, scripts, pictures) needs no place here.
        passive_paths: judged, but no activity: polling that must not keep a session alive.
        sign_in_url: path or https URL of the sign-in page; ``{reason}`` in it becomes ``idle``, ``absolute`` or
            ``revoked``, so that the page can say why one has to sign in again, and ``{next}`` the page that was
            asked for, as the value of a query parameter: always a path of this origin.
        max_sessions: living sessions of one user; the oldest ends beyond that.
        strip_cookies: names of further cookies that live and end with the session, for example that of the
            framework's own session. The application sees them only beside a living session of ours, so that a
            stolen copy is worth nothing after sign-out or a time-out.
        write_interval: seconds between two records of activity in the store; 1 % of ``idle_timeout`` and at most
            10 s by default. What one process has not recorded yet, another does not know: there the idle limit
            may strike early by this much. It never strikes late.
        outage_grace: seconds for which a session confirmed by the store is believed while that is away; after
            that, and always with 0, the answer is 503 and the cookie is kept.
        clear_site_data: what the browser is told to drop at sign-out, for example ``["cache", "storage"]``
            (ASVS 14.3.1); ``"cookies"`` means all of the host, not only ours.
        on_expired: called once with the record and the reason when a session is found to have run out.
        clock: source of time; by default the store's. With a clock that is not the store's, another host's may
            differ: a session that this process has never seen alive is then refused, but not ended for all, and
            the browser keeps its cookie.
        on_refusal: takes the environ and the ``Refusal`` (``idle``, ``absolute``, ``revoked``; ``store`` while that
            is away) and may return an ``OwnAnswer``.

    Raises:
        ConfigurationError: an impossible duration, path, URL, number or cookie name.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        store: SessionStore,
        idle_timeout: float | timedelta = 1800,
        absolute_timeout: float | timedelta = 28800,
        warn_before: float | timedelta = 120,
        cookie: SessionCookie | None = None,
        public_paths: Iterable[str] = (),
        passive_paths: Iterable[str] = (),
        sign_in_url: str | None = None,
        max_sessions: int | None = None,
        strip_cookies: Iterable[str] = (),
        write_interval: float | timedelta | None = None,
        outage_grace: float | timedelta = 60,
        clear_site_data: Iterable[
            Literal["cache", "clientHints", "cookies", "executionContexts", "prefetchCache", "storage", "*"]
        ] = (),
        on_expired: Callable[[SessionRecord, str], object] | None = None,
        clock: Clock | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        limits = SessionLimits(
            seconds(idle_timeout, parameter="idle_timeout", allow_zero=False),
            seconds(absolute_timeout, parameter="absolute_timeout", allow_zero=False),
        )
        if max_sessions is not None:
            whole_number(max_sessions, parameter="max_sessions", minimum=1)
        self._app = watched(wsgi_application(app), store)
        self._fields = SessionResponseHeaders(
            SessionCookie() if cookie is None else instance(cookie, SessionCookie, parameter="cookie"),
            also_cleared=_names(strip_cookies),
            warn_before=seconds(warn_before, parameter="warn_before"),
            clear_site_data=_clear_site_data(clear_site_data),
        )
        self._needle = self._fields.cookie.needle
        self._dead_cookies = CookieFilter((self._fields.cookie.name, *self._fields.also_cleared))
        self._public = exemptions(public_paths, parameter="public_paths")
        passive = texts(passive_paths, parameter="passive_paths", of="paths")
        self._passive = exemptions(passive, parameter="passive_paths") if passive else None
        self._sign_in_page = None if sign_in_url is None else SignInPage(sign_in_url)
        self._refuser = Refuser("session", on_refusal)
        self._keeper = SessionLookup(
            offers(store, "load", "create", "touch", parameter="store", kind="a SessionStore"),
            limits=limits,
            write_interval=_write_interval(write_interval, limits.idle),
            outage_grace=seconds(outage_grace, parameter="outage_grace"),
            max_sessions=max_sessions,
            on_expired=None if on_expired is None else function(on_expired, parameter="on_expired"),
            clock=clock,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        header = environ.get("HTTP_COOKIE")
        session_id = find_cookie(header, self._needle) if header else None
        if session_id is None:
            if header and self._fields.also_cleared:
                self._hide_cookies(environ)
            return self._run(environ, SessionHandle(self._keeper, self._fields), start_response)
        active = self._passive is None or not self._passive.match(environ.get("PATH_INFO", ""))
        try:
            record, reason, deadline = self._find(session_id, active=active)
        except BackendUnavailableError as error:
            return self._unsure(environ, start_response, error)
        # By length first, which tells the two kinds of ids apart without looking into them.
        if len(session_id) != ID_LENGTH and is_anonymous_id(session_id):
            return self._anonymous(environ, start_response, session_id, (record, reason, deadline))
        if record is None or reason:
            # A request that reads may finish under the old id; one that writes must come again with the new one.
            if record is None or reason != ROTATED or environ["REQUEST_METHOD"] not in _READING:
                return self._dead(environ, start_response, record, reason)
            late = SessionHandle(self._keeper, self._fields, session_id, record, deadline, late=True)
            return self._run(environ, late, start_response)
        return self._run(
            environ, SessionHandle(self._keeper, self._fields, session_id, record, deadline), start_response
        )

    @property
    def cookie_name(self) -> str:
        """The name of the session cookie."""
        return self._fields.cookie.name

    def open(self, cookies: str | None) -> SessionHandle:
        """The session of a Cookie header outside a request of this wrapper: for tests and adapters.

        It is judged as in a request, but this is no activity. ``SessionHandle.step`` says what the answer has to.

        Args:
            cookies: the header, or ``None``.

        Raises:
            BackendUnavailableError: the store is away.
        """
        session_id = find_cookie(cookies, self._needle) if cookies else None
        if session_id is not None:
            record, reason, deadline = self._find(session_id, active=False)
            if record is not None and not reason:
                return SessionHandle(self._keeper, self._fields, session_id, record, deadline)
        return SessionHandle(self._keeper, self._fields)

    def _find(self, session_id: str, *, active: bool) -> FoundSession:
        if len(session_id) == ID_LENGTH or is_anonymous_id(session_id):
            return self._keeper.find(session_id, active=active)
        return NOT_FOUND

    def _anonymous(
        self, environ: WSGIEnvironment, start_response: StartResponse, session_id: str, found: FoundSession
    ) -> Iterable[bytes]:
        """A session that is nobody's: when it is over, the visitor goes on without, and nobody is told."""
        record, reason, deadline = found
        lives = record is not None and not reason
        if self._fields.also_cleared or not lives:
            self._hide_cookies(environ)
        if lives:
            handle = SessionHandle(self._keeper, self._fields, session_id, record, deadline)
        else:
            handle = SessionHandle(self._keeper, self._fields)
            handle.forget("", cleared=not (self._keeper.left_alone(record) or _is_part_of_a_page(environ)))
        return self._run(environ, handle, start_response)

    def _run(
        self, environ: WSGIEnvironment, handle: SessionHandle, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ[SESSION_KEY] = handle
        held = None
        if not holds_back(start_response):
            held = BufferedHead(start_response)
            start_response = held.start_response
        try:
            result: Iterable[bytes] = self._app(environ, with_step(start_response, handle.step))
        except BackendUnavailableError as error:
            result = self._away(environ, start_response, error, after_error=True)
            handle.head_given = True
        if held is not None:
            held.release()
        if handle.head_given:
            return result

        def without_store(error: BackendUnavailableError) -> list[bytes]:
            return self._away(environ, start_response, error, after_error=True)

        return LazyBody(result, handle, without_store)

    def _unsure(
        self, environ: WSGIEnvironment, start_response: StartResponse, error: BackendUnavailableError
    ) -> Iterable[bytes]:
        """The store is away: closed, but for what is public; the client keeps its cookie."""
        if not (self._is_public(environ) or _is_part_of_a_page(environ)):
            return self._away(environ, start_response, error)
        # The application must not read an id out of a cookie that nobody has judged.
        self._hide_cookies(environ)
        return self._run(environ, SessionHandle(self._keeper, self._fields), start_response)

    def _dead(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        record: SessionRecord | None,
        reason: str,
    ) -> Iterable[bytes]:
        # To the client it is over like any other; why is nobody's business but the record's.
        reason = REVOKED if reason == ROTATED else reason
        tell("refused", reason, record.user_id if record is not None else None)
        public, part = self._is_public(environ), _is_part_of_a_page(environ)
        cleared = not self._keeper.left_alone(record)
        if public or part:
            handle = SessionHandle(self._keeper, self._fields)
            # A picture is no place to end a session: the page around it will tell.
            handle.forget(reason, cleared=cleared and not part)
            self._hide_cookies(environ)
            return self._run(environ, handle, start_response)
        status, headers, body = self._refusal(environ, reason)
        headers.append(("X-Session-Timeout-Reason", reason))
        if cleared:
            self._fields.clear(headers)
        seen = seen_of(record, self._keeper.now())
        return self._refuse(environ, start_response, reason, (status, headers, body), seen=seen)

    def _away(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        error: BackendUnavailableError,
        *,
        after_error: bool = False,
    ) -> list[bytes]:
        answer = unavailable(error)
        return self._refuse(
            environ, start_response, "store", answer, seen=str(error), after_error=after_error
        )

    def _refuse(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        rule: str,
        answer: Answer,
        *,
        seen: str,
        after_error: bool = False,
    ) -> list[bytes]:
        """Answer in place of the application, in its own words where it has some; a redirect has none."""
        status, headers, _ = answer
        refused = environ[REFUSAL_KEY] = Refusal(
            wrapper="session",
            rule=rule,
            status=int(status[:3]),
            detail=detail_of(rule),
            seen=shown(seen),
            headers=tuple(field for field in headers if field[0] not in _OF_THE_BODY),
        )
        worded = self._refuser.own_words(environ, refused) if refused.status >= 400 else None
        status, headers, body = answer if worded is None else worded.parts(head=False)
        if after_error:
            # The application may have begun its answer; PEP 3333 lets a server replace it only with exc_info.
            start_response(status, headers, sys.exc_info())
        else:
            start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _refusal(self, environ: WSGIEnvironment, reason: str) -> Answer:
        get = environ.get
        if self._sign_in_page is None or not wants_page(
            get("HTTP_ACCEPT", ""), get("HTTP_X_REQUESTED_WITH", "")
        ):
            return refusal(reason)
        path = get("SCRIPT_NAME", "") + get("PATH_INFO", "")
        asked_for = way_back(environ["REQUEST_METHOD"], path, get("QUERY_STRING", ""))
        return redirect(self._sign_in_page.location(reason, asked_for))

    def _is_public(self, environ: WSGIEnvironment) -> bool:
        path = environ.get("PATH_INFO", "")
        page = self._sign_in_page
        return self._public.match(path) or (
            page is not None and page.is_at(environ.get("SCRIPT_NAME", ""), path)
        )

    def _hide_cookies(self, environ: WSGIEnvironment) -> None:
        kept = self._dead_cookies.without(environ["HTTP_COOKIE"])
        if kept:
            environ["HTTP_COOKIE"] = kept
        else:
            # Not an empty header: CSRFMiddleware wants a token from whoever sends cookies.
            del environ["HTTP_COOKIE"]


def _is_part_of_a_page(environ: WSGIEnvironment) -> bool:
    get = environ.get
    return is_part_of_a_page(environ["REQUEST_METHOD"], get("PATH_INFO", ""), get("HTTP_SEC_FETCH_DEST", ""))


def _write_interval(value: float | timedelta | None, idle: float) -> float:
    if value is None:
        # A hundredth of the idle time: nobody notices that a session ends so much early.
        return min(_LONGEST_WRITE_INTERVAL, idle / 100)
    interval = seconds(value, parameter="write_interval")
    if interval > idle / 2:
        raise ConfigurationError(
            "write_interval must be at most half of idle_timeout", parameter="write_interval"
        )
    return interval


def _names(cookies: Iterable[str]) -> tuple[str, ...]:
    names = texts(cookies, parameter="strip_cookies", of="cookie names")
    if not all(is_cookie_name(name) for name in names):
        raise ConfigurationError("strip_cookies must be a list of cookie names", parameter="strip_cookies")
    return names


def _clear_site_data(kinds: Iterable[str]) -> str:
    return ", ".join(
        f'"{choice(kind, _SITE_DATA, parameter="clear_site_data")}"'
        for kind in texts(kinds, parameter="clear_site_data", of="kinds of data")
    )
