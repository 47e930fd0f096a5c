"""Session timeouts: idle and absolute limits, enforced before the application runs, with any framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening._core.checks import choice, function, instance, offers, strings, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.web.environ_keys import REFUSAL_KEY, SESSION_KEY
from mks_hardening._core.web.paths import exemptions
from mks_hardening._core.web.wsgi_head import BufferedHead, is_buffered, with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.refusals import Refusal
from mks_hardening._edge.session.cookie_header import CookieFilter, find_cookie, is_cookie_name
from mks_hardening._edge.session.refusal_texts import (
    Answer,
    detail_of,
    redirect,
    refusal,
    seen_of,
    unavailable,
)
from mks_hardening._edge.session.request_kind import is_part_of_a_page, wants_page
from mks_hardening._edge.session.response_headers import SessionResponseHeaders
from mks_hardening._edge.session.session_cookie import SessionCookie
from mks_hardening._edge.session.session_handle import SessionHandle
from mks_hardening._edge.session.session_ids import ID_LENGTH, is_anonymous_id
from mks_hardening._edge.session.session_lookup import (
    NOT_FOUND,
    FoundSession,
    SessionLookup,
    emit_session_event,
)
from mks_hardening._edge.session.session_rules import REVOKED, ROTATED, SessionLimits
from mks_hardening._edge.session.sign_in_page import SignInPage, return_path
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.wsgi._refusal_response import Refuser, shown
from mks_hardening.wsgi.session._lazy_body import LazyBody
from mks_hardening.wsgi.session._one_process import warn_if_multiprocess

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

__all__ = ["SessionTimeoutMiddleware"]

# In seconds. A session may end too early by this much in another process, which knows only what was written.
_LONGEST_WRITE_INTERVAL: Final = 10.0
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Fields that describe the built-in body, which the application may replace.
_OF_THE_BODY: Final = frozenset({"Content-Type", "Content-Length", "Cache-Control"})
_SITE_DATA: Final = ("cache", "clientHints", "cookies", "executionContexts", "prefetchCache", "storage", "*")


class SessionTimeoutMiddleware:
    """Middleware for sessions with an idle and an absolute limit; rejects the cookies of ended sessions.

    Sessions are checked before the application runs. The cookie contains only a 256-bit id, and the store decides.
    A cookie that is replayed after sign-out or expiry is therefore invalid; after a rotation the old one is
    accepted for ten seconds, for GET, HEAD and OPTIONS only. A request with an invalid cookie gets 401 with a
    problem document, or 303 to ``sign_in_url`` if a page is being opened. The response has the field
    ``X-Session-Timeout-Reason``, clears the cookies and is not cached. Requests without a cookie pass:
    authorization is up to the application.

    The application finds a ``SessionHandle`` at ``environ["mks_hardening.session"]``.

    Args:
        app: the WSGI application.
        store: ``MemorySessionStore``, ``RedisSessionStore`` or your own.
        idle_timeout: seconds without activity after which a session ends (ASVS 7.3.1).
        absolute_timeout: seconds after sign-in at which a session ends in any case (ASVS 7.3.2).
        warn_before: responses carry ``X-Session-Expires-In`` in the last so many seconds; 0 for never.
        cookie: name and attributes of the cookie.
        public_paths: paths that are also served with an invalid cookie, like the path of ``sign_in_url``; the
            application then sees neither that cookie nor those in ``strip_cookies``. A trailing slash includes
            everything below. Resources that a page loads (style sheets, scripts, images) need not be listed.
        passive_paths: paths whose requests are checked but do not count as activity, for example polling.
        sign_in_url: path or https URL of the sign-in page. ``{reason}`` is replaced by ``idle``, ``absolute`` or
            ``revoked``, so that the page can explain why the user has to sign in again; ``{next}`` by the requested
            page as the value of a query parameter, always a path of this origin.
        max_sessions: maximum number of living sessions per user; beyond it the oldest session ends.
        strip_cookies: names of further cookies that are valid only with the session, for example that of the
            framework's own session. The application sees them only with a living session, so that a stolen copy
            is useless after sign-out or a timeout.
        write_interval: seconds between two writes of activity to the store; by default 1 % of ``idle_timeout``, at
            most 10 s. Other processes do not know activity that is not written yet, so in them a session may end
            early by this much, but never late.
        outage_grace: seconds for which a session that the store has confirmed is accepted while the store is
            unavailable. After that, and always with 0, the response is 503 and the cookie is kept.
        clear_site_data: data that browsers delete at sign-out, for example ``["cache", "storage"]`` (ASVS 14.3.1);
            ``"cookies"`` deletes all cookies of the host.
        on_expired: called once with the record and the reason when a session is found to have expired.
        clock: source of time; by default that of the store. Another clock may differ from that of other hosts: an
            expired session that this process has never seen alive is then refused, but not ended for other
            hosts, and the browser keeps its cookie.
        on_refusal: takes the environ and the ``Refusal`` (``idle``, ``absolute``, ``revoked``; ``store`` during an
            outage) and may return an ``OwnAnswer``.

    Raises:
        ConfigurationError: a duration, path, URL, number or cookie name is invalid.
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
        self._app = warn_if_multiprocess(wsgi_application(app), store)
        self._fields = SessionResponseHeaders(
            SessionCookie() if cookie is None else instance(cookie, SessionCookie, parameter="cookie"),
            also_cleared=_names(strip_cookies),
            warn_before=seconds(warn_before, parameter="warn_before"),
            clear_site_data=_clear_site_data(clear_site_data),
        )
        self._needle = self._fields.cookie.needle
        self._dead_cookies = CookieFilter((self._fields.cookie.name, *self._fields.also_cleared))
        self._public = exemptions(public_paths, parameter="public_paths")
        passive = strings(passive_paths, parameter="passive_paths", of="paths")
        self._passive = exemptions(passive, parameter="passive_paths") if passive else None
        self._sign_in_page = None if sign_in_url is None else SignInPage(sign_in_url)
        self._refuser = Refuser("session", on_refusal)
        self._lookup = SessionLookup(
            offers(store, "load", "create", "touch", parameter="store", kind="a SessionStore"),
            limits=limits,
            write_interval=_write_interval(write_interval, limits.idle),
            outage_grace=seconds(outage_grace, parameter="outage_grace"),
            max_sessions=max_sessions,
            on_expired=None if on_expired is None else function(on_expired, parameter="on_expired"),
            clock=clock,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        header = environ.get("HTTP_COOKIE")
        session_id = find_cookie(header, self._needle) if header else None
        if session_id is None:
            if header and self._fields.also_cleared:
                self._hide_cookies(environ)
            return self._run(environ, SessionHandle(self._lookup, self._fields), start_response)
        active = self._passive is None or not self._passive.match(environ.get("PATH_INFO", ""))
        try:
            record, reason, deadline = self._find(session_id, active=active)
        except BackendUnavailableError as error:
            return self._unsure(environ, start_response, error)
        # Compare lengths first, which distinguishes the two kinds of ids without parsing them.
        if len(session_id) != ID_LENGTH and is_anonymous_id(session_id):
            return self._anonymous(environ, start_response, session_id, (record, reason, deadline))
        if record is None or reason:
            # A request that reads may finish under the old id; one that writes must be repeated with the new one.
            if record is None or reason != ROTATED or environ["REQUEST_METHOD"] not in _READING:
                return self._dead(environ, start_response, record, reason)
            late = SessionHandle(self._lookup, self._fields, session_id, record, deadline, late=True)
            return self._run(environ, late, start_response)
        return self._run(
            environ, SessionHandle(self._lookup, self._fields, session_id, record, deadline), start_response
        )

    @property
    def cookie_name(self) -> str:
        """The name of the session cookie."""
        return self._fields.cookie.name

    def open(self, cookies: str | None) -> SessionHandle:
        """Return the session of a Cookie header outside a request to this middleware, for tests and adapters.

        The session is validated as in a request, but this does not count as activity. Apply ``SessionHandle.step``
        to the response to add its header fields.

        Args:
            cookies: value of the header, or ``None``.

        Raises:
            BackendUnavailableError: the store is unavailable.
        """
        session_id = find_cookie(cookies, self._needle) if cookies else None
        if session_id is not None:
            record, reason, deadline = self._find(session_id, active=False)
            if record is not None and not reason:
                return SessionHandle(self._lookup, self._fields, session_id, record, deadline)
        return SessionHandle(self._lookup, self._fields)

    def _find(self, session_id: str, *, active: bool) -> FoundSession:
        if len(session_id) == ID_LENGTH or is_anonymous_id(session_id):
            return self._lookup.find(session_id, active=active)
        return NOT_FOUND

    def _anonymous(
        self, environ: WSGIEnvironment, start_response: StartResponse, session_id: str, found: FoundSession
    ) -> Iterable[bytes]:
        """Handle an anonymous session: if it has ended, the visitor goes on without one and without a notice."""
        record, reason, deadline = found
        lives = record is not None and not reason
        if self._fields.also_cleared or not lives:
            self._hide_cookies(environ)
        if lives:
            handle = SessionHandle(self._lookup, self._fields, session_id, record, deadline)
        else:
            handle = SessionHandle(self._lookup, self._fields)
            handle.forget("", cleared=not (self._lookup.left_alone(record) or _is_part_of_a_page(environ)))
        return self._run(environ, handle, start_response)

    def _run(
        self, environ: WSGIEnvironment, handle: SessionHandle, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ[SESSION_KEY] = handle
        held = None
        if not is_buffered(start_response):
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
        """Handle an outage of the store: refuse the request unless it is public; the client keeps its cookie."""
        if not (self._is_public(environ) or _is_part_of_a_page(environ)):
            return self._away(environ, start_response, error)
        # The application must not read an id from a cookie that was not checked.
        self._hide_cookies(environ)
        return self._run(environ, SessionHandle(self._lookup, self._fields), start_response)

    def _dead(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        record: SessionRecord | None,
        reason: str,
    ) -> Iterable[bytes]:
        # The client gets the same reason as for other revoked sessions; the exact one goes only to the log record.
        reason = REVOKED if reason == ROTATED else reason
        emit_session_event("refused", reason, record.user_id if record is not None else None)
        public, part = self._is_public(environ), _is_part_of_a_page(environ)
        cleared = not self._lookup.left_alone(record)
        if public or part:
            handle = SessionHandle(self._lookup, self._fields)
            # The response for a subresource does not clear the cookie; that for the next page does.
            handle.forget(reason, cleared=cleared and not part)
            self._hide_cookies(environ)
            return self._run(environ, handle, start_response)
        status, headers, body = self._refusal(environ, reason)
        headers.append(("X-Session-Timeout-Reason", reason))
        if cleared:
            self._fields.clear(headers)
        seen = seen_of(record, self._lookup.now())
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
        """Respond in place of the application, with its custom response if there is one, except for redirects."""
        status, headers, _ = answer
        refused = environ[REFUSAL_KEY] = Refusal(
            wrapper="session",
            rule=rule,
            status=int(status[:3]),
            detail=detail_of(rule),
            seen=shown(seen),
            headers=tuple(field for field in headers if field[0] not in _OF_THE_BODY),
        )
        worded = self._refuser.custom_response(environ, refused) if refused.status >= 400 else None
        status, headers, body = answer if worded is None else worded.parts(head=False)
        if after_error:
            # The application may have started its response; PEP 3333 allows replacing it only with exc_info.
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
        asked_for = return_path(environ["REQUEST_METHOD"], path, get("QUERY_STRING", ""))
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
            # Not an empty header: CSRFMiddleware requires a token from clients that send cookies.
            del environ["HTTP_COOKIE"]


def _is_part_of_a_page(environ: WSGIEnvironment) -> bool:
    get = environ.get
    return is_part_of_a_page(environ["REQUEST_METHOD"], get("PATH_INFO", ""), get("HTTP_SEC_FETCH_DEST", ""))


def _write_interval(value: float | timedelta | None, idle: float) -> float:
    if value is None:
        # A hundredth of the idle time: too little for users to notice that a session ends early.
        return min(_LONGEST_WRITE_INTERVAL, idle / 100)
    interval = seconds(value, parameter="write_interval")
    if interval > idle / 2:
        raise ConfigurationError(
            "write_interval must be at most half of idle_timeout", parameter="write_interval"
        )
    return interval


def _names(cookies: Iterable[str]) -> tuple[str, ...]:
    names = strings(cookies, parameter="strip_cookies", of="cookie names")
    if not all(is_cookie_name(name) for name in names):
        raise ConfigurationError("strip_cookies must be a list of cookie names", parameter="strip_cookies")
    return names


def _clear_site_data(kinds: Iterable[str]) -> str:
    return ", ".join(
        f'"{choice(kind, _SITE_DATA, parameter="clear_site_data")}"'
        for kind in strings(kinds, parameter="clear_site_data", of="kinds of data")
    )
