"""Sessions that end: idle and absolute limits judged before the application runs, under any framework."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.wsgi._paths import PathRules
from mks_hardening.wsgi._session_answers import redirect, refusal, send, unavailable, wants_html
from mks_hardening.wsgi._session_cookie import CookieFilter, SessionCookie, find_cookie, is_cookie_name
from mks_hardening.wsgi._session_handle import ID_LENGTH, AnswerFields, SessionHandle
from mks_hardening.wsgi._session_keeper import NOT_FOUND, SessionKeeper, tell
from mks_hardening.wsgi._session_rules import Limits
from mks_hardening.wsgi._steady_clock import shared_clock

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

__all__ = ["SessionCookie", "SessionHandle", "SessionTimeoutMiddleware"]

_KEY: Final = "mks_hardening.session"
_SIGN_IN_URL: Final = re.compile(r"(?:https://[^\s\\/@]+)?/(?![/\\])[^\x00-\x20\\\x7f-\uffff]*").fullmatch
_LONGEST_WRITE_INTERVAL: Final = 10.0


class SessionTimeoutMiddleware:
    """Ends sessions that were idle too long, lived too long or were revoked, before the application runs.

    The cookie holds a 256-bit id and nothing else; the store is the judge, so a cookie that is replayed after
    sign-out, rotation or expiry is dead. A dead cookie gets 401 as a problem document, or 303 to
    ``sign_in_url`` where a page is being opened; the answer says ``X-Session-Timeout-Reason``, takes the cookies
    back and is not stored. Requests without a cookie pass: who may see what is the application's business.

    The application finds a ``SessionHandle`` at ``environ["mks_hardening.session"]``.

    Args:
        app: the WSGI application.
        store: ``MemorySessionStore``, ``RedisSessionStore`` or your own.
        idle_timeout: seconds without activity after which a session ends (ASVS 7.3.1).
        absolute_timeout: seconds after sign-in at which it ends whatever happens (ASVS 7.3.2).
        warn_before: inside the last so many seconds answers carry ``X-Session-Expires-In``; 0 never.
        cookie: name and attributes of the cookie.
        public_paths: work with a dead cookie too, as does the path of ``sign_in_url``; the application then sees
            neither that cookie nor those of ``strip_cookies``. A trailing slash means the folder.
        passive_paths: judged, but no activity: polling that must not keep a session alive.
        sign_in_url: path or https URL of the sign-in page; ``{reason}`` in it becomes ``idle``, ``absolute`` or
            ``revoked``, so that the page can say why one has to sign in again.
        max_sessions: living sessions of one user; the oldest ends beyond that.
        strip_cookies: names of further cookies that end with the session, for example the framework's.
        write_interval: seconds between two records of activity in the store; 1 % of ``idle_timeout`` and at most
            10 s by default. What one process has not recorded yet, another does not know: there the idle limit
            may strike early by this much. It never strikes late.
        outage_grace: seconds for which a session confirmed by the store is believed while that is away; after
            that, and always with 0, the answer is 503 and the cookie is kept.
        on_expired: called once with the record and the reason when a session is found to have run out.
        clock: source of time; by default the store's.

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
        on_expired: Callable[[SessionRecord, str], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        limits = Limits(
            seconds(idle_timeout, parameter="idle_timeout", allow_zero=False),
            seconds(absolute_timeout, parameter="absolute_timeout", allow_zero=False),
        )
        if max_sessions is not None and not _is_positive(max_sessions):
            raise ConfigurationError("max_sessions must be a positive int or None", parameter="max_sessions")
        self._app = app
        self._fields = AnswerFields(
            cookie if cookie is not None else SessionCookie(),
            also_cleared=_names(strip_cookies),
            warn_before=seconds(warn_before, parameter="warn_before"),
        )
        self._needle = self._fields.cookie.needle
        self._dead_cookies = CookieFilter((self._fields.cookie.name, *self._fields.also_cleared))
        self._public = PathRules(public_paths, parameter="public_paths")
        self._passive = PathRules(passive_paths, parameter="passive_paths")
        self._sign_in_url = sign_in_url
        self._sign_in_path = _path_of(sign_in_url)
        self._keeper = SessionKeeper(
            store,
            limits=limits,
            write_interval=_write_interval(write_interval, limits.idle),
            outage_grace=seconds(outage_grace, parameter="outage_grace"),
            max_sessions=max_sessions,
            on_expired=on_expired,
            clock=shared_clock(store, clock),
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        header = environ.get("HTTP_COOKIE")
        session_id = find_cookie(header, self._needle) if header else None
        if session_id is None:
            return self._run(environ, SessionHandle(self._keeper, self._fields, start_response))
        active = not self._passive.match(environ.get("PATH_INFO", ""))
        try:
            found = (
                self._keeper.find(session_id, active=active) if len(session_id) == ID_LENGTH else NOT_FOUND
            )
        except BackendUnavailableError as error:
            return self._unsure(environ, start_response, error)
        record, reason, deadline = found
        if record is None or reason:
            return self._dead(environ, start_response, record, reason)
        living = session_id, record, deadline
        return self._run(environ, SessionHandle(self._keeper, self._fields, start_response, living))

    def _run(self, environ: WSGIEnvironment, handle: SessionHandle) -> Iterable[bytes]:
        environ[_KEY] = handle
        try:
            result = self._app(environ, handle.start_response)
        except BackendUnavailableError as error:
            return handle.unavailable(environ, error)
        return result if handle.head_given else _LateBody(result, environ, handle)

    def _unsure(
        self, environ: WSGIEnvironment, start_response: StartResponse, error: BackendUnavailableError
    ) -> Iterable[bytes]:
        """The store is away: closed, but for what is public; the client keeps its cookie."""
        if not self._is_public(environ):
            return send(environ, start_response, unavailable(error))
        self._hide_cookies(environ)
        return self._run(environ, SessionHandle(self._keeper, self._fields, start_response))

    def _dead(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        record: SessionRecord | None,
        reason: str,
    ) -> Iterable[bytes]:
        if record is not None and not record.ended:
            self._keeper.expire(record, reason)
        tell("refused", reason, record.user_id if record is not None else None)
        if self._is_public(environ):
            handle = SessionHandle(self._keeper, self._fields, start_response)
            handle.forget(reason)
            self._hide_cookies(environ)
            return self._run(environ, handle)
        to_page = self._sign_in_url is not None and wants_html(environ)
        status, headers, body = redirect(_named(self._sign_in_url, reason)) if to_page else refusal(reason)
        headers += [("X-Session-Timeout-Reason", reason), *self._fields.clear([])]
        return send(environ, start_response, (status, headers, body))

    def _is_public(self, environ: WSGIEnvironment) -> bool:
        path = environ.get("PATH_INFO", "")
        if self._public.match(path) or path == self._sign_in_path:
            return True
        return bool(environ.get("SCRIPT_NAME", "") + path == self._sign_in_path)

    def _hide_cookies(self, environ: WSGIEnvironment) -> None:
        environ["HTTP_COOKIE"] = self._dead_cookies.without(environ["HTTP_COOKIE"])


class _LateBody:
    """Body of an application that calls ``start_response`` only when its first chunk is asked for."""

    __slots__ = ("_close", "_environ", "_handle", "_result", "_step")

    def __init__(self, result: Iterable[bytes], environ: WSGIEnvironment, handle: SessionHandle) -> None:
        self._result = result
        self._step: Callable[[], bytes] | None = None
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._environ = environ
        self._handle = handle

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._step is None:
                self._step = iter(self._result).__next__
            return self._step()
        except BackendUnavailableError as error:
            if self._handle.head_given:
                raise
            self._step = iter(self._handle.unavailable(self._environ, error)).__next__
            return self._step()

    def close(self) -> None:
        """Close the application's body, once."""
        close, self._close = self._close, None
        if close is not None:
            close()


def _is_positive(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _write_interval(value: float | timedelta | None, idle: float) -> float:
    if value is None:
        return min(_LONGEST_WRITE_INTERVAL, idle / 100)
    interval = seconds(value, parameter="write_interval")
    if interval > idle / 2:
        raise ConfigurationError(
            "write_interval must be at most half of idle_timeout", parameter="write_interval"
        )
    return interval


def _names(cookies: Iterable[str]) -> tuple[str, ...]:
    names = tuple(cookies)
    if isinstance(cookies, str) or not all(is_cookie_name(name) for name in names):
        raise ConfigurationError("strip_cookies must be a list of cookie names", parameter="strip_cookies")
    return names


def _named(url: str | None, reason: str) -> str:
    return (url or "/").replace("{reason}", reason)


def _path_of(url: str | None) -> str | None:
    if url is None:
        return None
    if not isinstance(url, str) or _SIGN_IN_URL(url) is None:
        raise ConfigurationError(
            "sign_in_url must be a path that begins with one slash, or an https URL", parameter="sign_in_url"
        )
    path = url.partition("?")[0].partition("#")[0]
    return path if path.startswith("/") else None
