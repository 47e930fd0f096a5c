"""Session timeouts: idle and absolute limits, enforced before the application runs, with any framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal

from mks_hardening._core.web.environ_keys import SESSION_KEY
from mks_hardening._core.web.wsgi_head import BufferedHead, is_buffered, with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.refusal_response import FixedResponse
from mks_hardening._edge.session.session_cookie import SessionCookie
from mks_hardening._edge.session.session_gate import SessionGate, SessionRequest
from mks_hardening._edge.session.session_handle import SessionHandle
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.wsgi._send_response import send_response
from mks_hardening.wsgi.session._lazy_body import LazyBody
from mks_hardening.wsgi.session._one_process import warn_if_multiprocess

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

__all__ = ["SessionTimeoutMiddleware"]


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
        warn_before: responses have ``X-Session-Expires-In`` during the last ``warn_before`` seconds; 0 for never.
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
            most 10 s. Other processes do not see activity before it is written, so a session may end there
            early by this much, but never late.
        outage_grace: seconds for which a session that the store has confirmed is accepted while the store is
            unavailable. After that, and always with 0, the response is 503 and the cookie is kept.
        clear_site_data: data that browsers delete at sign-out, for example ``["cache", "storage"]`` (ASVS 14.3.1);
            ``"cookies"`` deletes all cookies of the host.
        on_expired: called once with the record and the reason when a session is found to have expired. An error
            that it raises is logged.
        clock: source of time; by default that of the store. Another clock may differ from that of other hosts: an
            expired session that this process has never seen alive is then refused, but not ended for other
            hosts, and the browser keeps its cookie.
        on_refusal: takes the environ and the ``Refusal`` (``idle``, ``absolute``, ``revoked``; ``store`` during an
            outage) and may return a ``CustomResponse``.

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
        self._app = warn_if_multiprocess(wsgi_application(app), store)
        self._gate = SessionGate(
            store=store,
            idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout,
            warn_before=warn_before,
            cookie=cookie,
            public_paths=public_paths,
            passive_paths=passive_paths,
            sign_in_url=sign_in_url,
            max_sessions=max_sessions,
            strip_cookies=strip_cookies,
            write_interval=write_interval,
            outage_grace=outage_grace,
            clear_site_data=clear_site_data,
            on_expired=on_expired,
            clock=clock,
            on_refusal=on_refusal,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        gate = self._gate
        cookies = environ.get("HTTP_COOKIE")
        session_id = gate.session_id(cookies)
        if session_id is None:
            if cookies and gate.fields.also_cleared:
                self._hide_cookies(environ)
            return self._run(environ, gate.no_session(), start_response)
        try:
            found = gate.find(session_id, environ.get("PATH_INFO", ""))
        except BackendUnavailableError as error:
            verdict = gate.without_store(error, _session_request(environ))
        else:
            handle = gate.living(session_id, found)
            if handle is not None:
                return self._run(environ, handle, start_response)
            verdict = gate.decide(session_id, found, _session_request(environ))
        if isinstance(verdict, FixedResponse):
            return send_response(environ, start_response, verdict)
        if verdict.hides_cookies:
            self._hide_cookies(environ)
        return self._run(environ, verdict.handle, start_response)

    @property
    def cookie_name(self) -> str:
        """The name of the session cookie."""
        return self._gate.fields.cookie.name

    def open(self, cookies: str | None) -> SessionHandle:
        """Return the session of a Cookie header outside a request to this middleware, for tests and adapters.

        The session is validated as in a request, but this does not count as activity. Apply ``SessionHandle.step``
        to the response to add its header fields.

        Args:
            cookies: value of the header, or ``None``.

        Raises:
            BackendUnavailableError: the store is unavailable.
        """
        return self._gate.open(cookies)

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
            result = self._without_store(environ, start_response, error)
            handle.head_given = True
        if held is not None:
            held.release()
        if handle.head_given:
            return result
        return LazyBody(result, handle, partial(self._without_store, environ, start_response))

    def _without_store(
        self, environ: WSGIEnvironment, start_response: StartResponse, error: BackendUnavailableError
    ) -> list[bytes]:
        """Send the head of the response to an error that is being handled, and return its body."""
        response = self._gate.unavailable(error, environ)
        # The application may have started its response; PEP 3333 allows replacing it only with exc_info.
        start_response(response.status_line, [*response.headers], sys.exc_info())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _hide_cookies(self, environ: WSGIEnvironment) -> None:
        visible = self._gate.visible_cookies(environ["HTTP_COOKIE"])
        if visible:
            environ["HTTP_COOKIE"] = visible
        else:
            del environ["HTTP_COOKIE"]


def _session_request(environ: WSGIEnvironment) -> SessionRequest:
    get = environ.get
    return SessionRequest(
        environ,
        method=environ["REQUEST_METHOD"],
        mount=get("SCRIPT_NAME", ""),
        path=get("PATH_INFO", ""),
        query=get("QUERY_STRING", ""),
        accept=get("HTTP_ACCEPT", ""),
        requested_with=get("HTTP_X_REQUESTED_WITH", ""),
        destination=get("HTTP_SEC_FETCH_DEST", ""),
    )
