"""What happens to a request with or without a living session: decisions for the WSGI and the ASGI middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.checks import choice, function, instance, offers, strings, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import arun
from mks_hardening._core.web.environ_keys import REFUSAL_KEY
from mks_hardening._core.web.paths import exemptions
from mks_hardening._edge.refusal_response import FixedResponse, Refuser, printable_excerpt
from mks_hardening._edge.refusals import Refusal
from mks_hardening._edge.safe_methods import SAFE_METHODS
from mks_hardening._edge.session.cookie_header import CookieFilter, find_cookie, is_cookie_name
from mks_hardening._edge.session.refusal_texts import (
    detail_of,
    redirect,
    refusal,
    seen_of,
    setting_of,
    unavailable,
)
from mks_hardening._edge.session.request_kind import WEBSOCKET, is_part_of_a_page, wants_page
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

if TYPE_CHECKING:
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

__all__ = ["ServedSession", "SessionGate", "SessionRequest"]

# In seconds. A session may end too early by this much in another process, which knows only what was written.
_LONGEST_WRITE_INTERVAL: Final = 10.0
# Fields that describe the built-in body, which the application may replace.
_OF_THE_BODY: Final = frozenset({"Content-Type", "Content-Length", "Cache-Control"})
_SITE_DATA: Final = ("cache", "clientHints", "cookies", "executionContexts", "prefetchCache", "storage", "*")


class SessionRequest(NamedTuple):
    """The parts of a request that decide what happens when its session is not alive.

    Attributes:
        request: WSGI environ or ASGI scope, for ``on_refusal`` and the request log.
        method: method of the request, or ``WEBSOCKET``.
        mount: path under which the application is mounted.
        path: path below it, as the bytes of UTF-8 in Latin-1 (PEP 3333).
        query: query string.
        accept: field ``Accept``, or an empty text; the same for the two below.
        requested_with: field ``X-Requested-With``.
        destination: field ``Sec-Fetch-Dest``.
    """

    request: dict[str, Any]
    method: str
    mount: str
    path: str
    query: str
    accept: str
    requested_with: str
    destination: str


class ServedSession(NamedTuple):
    """A request that the application handles: its session, and whether it must not see the dead cookies."""

    handle: SessionHandle
    hides_cookies: bool


class SessionGate:
    """The validated options of ``SessionTimeoutMiddleware``, with the same arguments, and its decisions.

    Attributes:
        fields: header fields of responses.
        lookup: look-up of sessions.
        reads_paths: whether ``find`` and ``begin_find`` need the path.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        idle_timeout: float | timedelta,
        absolute_timeout: float | timedelta,
        warn_before: float | timedelta,
        cookie: SessionCookie | None,
        public_paths: Iterable[str],
        passive_paths: Iterable[str],
        sign_in_url: str | None,
        max_sessions: int | None,
        strip_cookies: Iterable[str],
        write_interval: float | timedelta | None,
        outage_grace: float | timedelta,
        clear_site_data: Iterable[str],
        on_expired: Callable[[SessionRecord, str], object] | None,
        clock: Clock | None,
        on_refusal: OnRefusal | None,
    ) -> None:
        limits = SessionLimits(
            seconds(idle_timeout, parameter="idle_timeout", allow_zero=False),
            seconds(absolute_timeout, parameter="absolute_timeout", allow_zero=False),
        )
        if max_sessions is not None:
            whole_number(max_sessions, parameter="max_sessions", minimum=1)
        self.fields = SessionResponseHeaders(
            SessionCookie() if cookie is None else instance(cookie, SessionCookie, parameter="cookie"),
            also_cleared=_names(strip_cookies),
            warn_before=seconds(warn_before, parameter="warn_before"),
            clear_site_data=_clear_site_data(clear_site_data),
        )
        self._needle = self.fields.cookie.needle
        self._dead_cookies = CookieFilter((self.fields.cookie.name, *self.fields.also_cleared))
        self._public = exemptions(public_paths, parameter="public_paths")
        passive = strings(passive_paths, parameter="passive_paths", of="paths")
        self._passive = exemptions(passive, parameter="passive_paths") if passive else None
        self.reads_paths: bool = self._passive is not None
        self._sign_in_page = None if sign_in_url is None else SignInPage(sign_in_url)
        self._refuser = Refuser("session", on_refusal)
        self.lookup = SessionLookup(
            offers(store, "load", "create", "touch", parameter="store", kind="a SessionStore"),
            limits=limits,
            write_interval=_write_interval(write_interval, limits.idle),
            outage_grace=seconds(outage_grace, parameter="outage_grace"),
            max_sessions=max_sessions,
            on_expired=None if on_expired is None else function(on_expired, parameter="on_expired"),
            clock=clock,
        )

    # --- look-up ---

    def session_id(self, cookies: str | None) -> str | None:
        """Return the value of the session cookie in a Cookie header; ``None`` without one."""
        return find_cookie(cookies, self._needle) if cookies else None

    def find(self, session_id: str, path: str) -> FoundSession:
        """Look up the session; the request counts as activity unless its path is passive.

        Raises:
            BackendUnavailableError: see ``SessionLookup.find``.
        """
        if _is_possible_id(session_id):
            return self.lookup.find(session_id, active=self._passive is None or self._is_active(path))
        return NOT_FOUND

    def begin_find(self, session_id: str, path: str) -> FoundSession | Awaitable[FoundSession]:
        """``find`` for asyncio; a result that needs no round trip is returned at once."""
        if _is_possible_id(session_id):
            return self.lookup.begin_find(session_id, active=self._passive is None or self._is_active(path))
        return NOT_FOUND

    def open(self, cookies: str | None) -> SessionHandle:
        """Return the session of a Cookie header without counting this as activity.

        Raises:
            BackendUnavailableError: see ``SessionLookup.find``.
        """
        session_id = self.session_id(cookies)
        if session_id is not None and _is_possible_id(session_id):
            return self._opened(session_id, self.lookup.find(session_id, active=False))
        return self.no_session()

    async def aopen(self, cookies: str | None) -> SessionHandle:
        """``open`` for asyncio."""
        session_id = self.session_id(cookies)
        if session_id is not None and _is_possible_id(session_id):
            return self._opened(session_id, await self.lookup.afind(session_id, active=False))
        return self.no_session()

    def _opened(self, session_id: str, found: FoundSession) -> SessionHandle:
        record, reason, deadline = found
        if record is None or reason:
            return self.no_session()
        return self._handle(session_id, record, deadline)

    async def ahas_ended(self, session_id: str) -> bool:
        """Return whether a session has ended since; this does not count as activity.

        A new id of the same sign-in is not an end. While the store is unavailable, no session ends.
        """
        try:
            record, reason, _ = await self.lookup.afind(session_id, active=False)
            if reason == ROTATED and record is not None:
                return await arun(self.lookup.successor(record)) is None
        except BackendUnavailableError:
            return False
        return bool(reason)

    def _is_active(self, path: str) -> bool:
        # Most gates have no passive paths, and every request pays for a call: the callers look first.
        return self._passive is None or not self._passive.match(path)

    # --- decisions ---

    def no_session(self) -> SessionHandle:
        """Return the handle of a request without a session."""
        return SessionHandle(self.lookup, self.fields)

    def living(self, session_id: str, found: FoundSession) -> SessionHandle | None:
        """Return the handle of a living session of a user, which is the usual case; else ``None``."""
        record, reason, deadline = found
        # Compare lengths first, which distinguishes the two kinds of ids without parsing them.
        if record is None or reason or len(session_id) != ID_LENGTH:
            return None
        return SessionHandle(self.lookup, self.fields, session_id, record, deadline)

    def decide(
        self, session_id: str, found: FoundSession, asked: SessionRequest
    ) -> ServedSession | FixedResponse:
        """Return what happens to a request whose session is anonymous or not alive."""
        record, reason, deadline = found
        if len(session_id) != ID_LENGTH and is_anonymous_id(session_id):
            return self._anonymous(session_id, found, asked)
        # A request that reads may finish under the old id; one that writes must be repeated with the new one.
        if record is not None and reason == ROTATED and asked.method in SAFE_METHODS:
            late = SessionHandle(self.lookup, self.fields, session_id, record, deadline, late=True)
            return ServedSession(late, hides_cookies=False)
        return self._dead(record, reason, asked)

    def without_store(
        self, error: BackendUnavailableError, asked: SessionRequest
    ) -> ServedSession | FixedResponse:
        """Return what happens during an outage: 503 unless the path is public; the client keeps its cookie."""
        if self._is_public(asked) or _is_part_of_a_page(asked):
            # The application must not read an id from a cookie that was not checked.
            return ServedSession(self.no_session(), hides_cookies=True)
        return self.unavailable(error, asked.request)

    def unavailable(self, error: BackendUnavailableError, request: dict[str, Any]) -> FixedResponse:
        """Return the 503 response for a store that does not respond, also if the application ran into it."""
        return self._refused(request, "store", unavailable(error), seen=str(error))

    def visible_cookies(self, cookies: str) -> str:
        """Return a Cookie header without the cookies that are valid only with a session.

        If nothing is left, remove the field: ``CSRFMiddleware`` requires a token from clients that send cookies.
        """
        return self._dead_cookies.without(cookies)

    def _handle(self, session_id: str, record: SessionRecord, deadline: float) -> SessionHandle:
        return SessionHandle(self.lookup, self.fields, session_id, record, deadline)

    def _anonymous(self, session_id: str, found: FoundSession, asked: SessionRequest) -> ServedSession:
        """Serve an anonymous session: if it has ended, the visitor continues without one and without a notice."""
        record, reason, deadline = found
        if record is not None and not reason:
            handle = self._handle(session_id, record, deadline)
            return ServedSession(handle, hides_cookies=bool(self.fields.also_cleared))
        handle = self.no_session()
        handle.discard("", cleared=not (self.lookup.keeps_cookie(record) or _is_part_of_a_page(asked)))
        return ServedSession(handle, hides_cookies=True)

    def _dead(
        self, record: SessionRecord | None, reason: str, asked: SessionRequest
    ) -> ServedSession | FixedResponse:
        # The client gets the same reason as for other revoked sessions; the exact one goes only to the log record.
        reason = REVOKED if reason == ROTATED else reason
        emit_session_event("refused", reason, record.user_id if record is not None else None)
        cleared = not self.lookup.keeps_cookie(record)
        part = _is_part_of_a_page(asked)
        if part or self._is_public(asked):
            handle = self.no_session()
            # The response for a subresource does not clear the cookie; that for the next page does.
            handle.discard(reason, cleared=cleared and not part)
            return ServedSession(handle, hides_cookies=True)
        response = self._ended(reason, asked)
        headers = [*response.headers, ("X-Session-Timeout-Reason", reason)]
        if cleared:
            self.fields.clear(headers)
        seen = seen_of(record, self.lookup.now())
        return self._refused(asked.request, reason, response.with_headers(headers), seen=seen)

    def _ended(self, reason: str, asked: SessionRequest) -> FixedResponse:
        opens_socket = asked.method == WEBSOCKET
        if self._sign_in_page is None or opens_socket or not wants_page(asked.accept, asked.requested_with):
            return refusal(reason)
        asked_for = return_path(asked.method, asked.mount + asked.path, asked.query)
        return redirect(self._sign_in_page.location(reason, asked_for))

    def _refused(
        self, request: dict[str, Any], rule: str, response: FixedResponse, *, seen: str
    ) -> FixedResponse:
        """Record the refusal; return the custom response if the application has one, except for redirects."""
        refused = request[REFUSAL_KEY] = Refusal(
            wrapper="session",
            rule=rule,
            status=response.status,
            detail=detail_of(rule),
            seen=printable_excerpt(seen),
            headers=tuple(field for field in response.headers if field[0] not in _OF_THE_BODY),
            setting=setting_of(rule),
        )
        custom = self._refuser.custom_response(request, refused) if refused.status >= 400 else None
        return response if custom is None else custom

    def _is_public(self, asked: SessionRequest) -> bool:
        page = self._sign_in_page
        return self._public.match(asked.path) or (page is not None and page.is_at(asked.mount, asked.path))


def _is_possible_id(session_id: str) -> bool:
    return len(session_id) == ID_LENGTH or is_anonymous_id(session_id)


def _is_part_of_a_page(asked: SessionRequest) -> bool:
    return is_part_of_a_page(asked.method, asked.path, asked.destination)


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
