"""Session timeouts: idle and absolute limits, enforced before the application runs, with any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from mks_hardening._core.durations import seconds
from mks_hardening._core.web.asgi_scope import (
    REQUESTS,
    header,
    method_of,
    mount_of,
    path_below_mount,
    query_of,
)
from mks_hardening._core.web.environ_keys import SESSION_KEY
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.refusal_response import FixedResponse
from mks_hardening._edge.session.request_kind import WEBSOCKET
from mks_hardening._edge.session.session_cookie import SessionCookie
from mks_hardening._edge.session.session_gate import ServedSession, SessionGate, SessionRequest
from mks_hardening._edge.session.session_handle import SessionHandle
from mks_hardening._edge.session.stores.memory_store import MemorySessionStore
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import HEADS, decoded, encoded, raw_headers, send_response, with_headers
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.asgi._socket_recheck import SocketRecheck
    from mks_hardening.protocols import Clock, SessionRecord, SessionStore

__all__ = ["SessionTimeoutMiddleware"]

_WITH_COOKIES: Final = HEADS | {"websocket.accept"}


class SessionTimeoutMiddleware:
    """Middleware for sessions with an idle and an absolute limit; rejects the cookies of ended sessions.

    The rules, responses and parameters are those of ``mks_hardening.wsgi.SessionTimeoutMiddleware``. Sessions are
    also checked before a WebSocket is accepted; a refused one gets a denial response, or is closed with 1008. The
    store is called without blocking the event loop: by its asyncio methods, or in a worker thread.

    The application finds a ``SessionHandle`` at ``scope["mks_hardening.session"]``. On the event loop, call the
    methods whose name begins with ``a``; the plain ones are for ``def`` endpoints, which frameworks run in worker
    threads, and raise ``RuntimeError`` on the loop.

    Args:
        app: the ASGI application.
        store: ``MemorySessionStore``, ``RedisSessionStore`` or your own.
        idle_timeout: seconds without activity after which a session ends (ASVS 7.3.1).
        absolute_timeout: seconds after sign-in at which a session ends in any case (ASVS 7.3.2).
        warn_before: responses have ``X-Session-Expires-In`` during the last ``warn_before`` seconds; 0 for never.
        cookie: name and attributes of the cookie.
        public_paths: paths that are also served with an invalid cookie, like the path of ``sign_in_url``.
        passive_paths: paths whose requests are checked but do not count as activity, for example polling.
        sign_in_url: path or https URL of the sign-in page, with ``{reason}`` and ``{next}``.
        max_sessions: maximum number of living sessions per user; beyond it the oldest session ends.
        strip_cookies: names of further cookies that are valid only with the session.
        write_interval: seconds between two writes of activity to the store; by default 1 % of ``idle_timeout``, at
            most 10 s.
        outage_grace: seconds for which a session that the store has confirmed is accepted while the store is
            unavailable.
        clear_site_data: data that browsers delete at sign-out (ASVS 14.3.1).
        on_expired: called once with the record and the reason when a session is found to have expired. An error
            that it raises is logged.
        clock: source of time; by default that of the store.
        recheck_sockets: seconds between two look-ups of the session of an open WebSocket, which is closed with 1008
            when the session has ended; by default, sessions are only checked when a WebSocket is opened. An open
            WebSocket does not count as activity. It stays open while the store is unavailable.
        on_refusal: takes the scope and the ``Refusal`` (``idle``, ``absolute``, ``revoked``; ``store`` during an
            outage) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: a duration, path, URL, number or cookie name is invalid.
    """

    def __init__(
        self,
        app: ASGIApplication,
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
        recheck_sockets: float | timedelta | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
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
        self._recheck = (
            None
            if recheck_sockets is None
            else seconds(recheck_sockets, parameter="recheck_sockets", allow_zero=False)
        )
        # The memory of this process responds at once, so its plain methods may be called on the event loop.
        self._gate.lookup.is_async = not isinstance(store, MemorySessionStore)

    @property
    def cookie_name(self) -> str:
        """The name of the session cookie."""
        return self._gate.fields.cookie.name

    def open(self, cookies: str | None) -> SessionHandle:
        """Return the session of a Cookie header outside a request to this middleware, for tests and adapters.

        The session is validated as in a request, but this does not count as activity. Apply ``SessionHandle.step``
        to the response to add its header fields. On the event loop, call ``aopen``.

        Args:
            cookies: value of the header, or ``None``.

        Raises:
            BackendUnavailableError: the store is unavailable.
        """
        return self._gate.open(cookies)

    async def aopen(self, cookies: str | None) -> SessionHandle:
        """``open`` for asyncio."""
        return await self._gate.aopen(cookies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in REQUESTS:
            await self._app(scope, receive, send)
            return
        gate, inner = self._gate, private_scope(scope)
        cookies = header(scope, b"cookie")
        session_id = gate.session_id(cookies)
        if session_id is None:
            handle = gate.no_session()
            if cookies and gate.fields.also_cleared:
                self._hide_cookies(inner, cookies)
        else:
            verdict: SessionHandle | ServedSession | FixedResponse
            try:
                begun = gate.begin_find(session_id, path_below_mount(scope) if gate.reads_paths else "")
                found = begun if isinstance(begun, tuple) else await begun
            except BackendUnavailableError as error:
                verdict = gate.without_store(error, _session_request(inner))
            else:
                verdict = gate.living(session_id, found) or gate.decide(
                    session_id, found, _session_request(inner)
                )
            if isinstance(verdict, FixedResponse):
                await send_response(inner, send, verdict)
                return
            if isinstance(verdict, ServedSession):
                handle = verdict.handle
                if verdict.hides_cookies and cookies:
                    self._hide_cookies(inner, cookies)
            else:
                handle = verdict
        inner[SESSION_KEY] = handle
        recheck = None if scope["type"] == "http" else self._socket_recheck(handle, receive, send)
        if recheck is not None:
            receive, send = recheck.receive, recheck.send

        async def send_with_fields(message: Message) -> None:
            if message["type"] in _WITH_COOKIES and handle.has_fields():
                message = _stepped(message, handle)
            await send(message)

        try:
            await self._app(inner, receive, send_with_fields)
        except BackendUnavailableError as error:
            if handle.head_given:
                raise
            await send_response(inner, send_with_fields, gate.unavailable(error, inner))
        except ConnectionAbortedError as error:
            # The socket is closed, so there is nothing that the server could do about it.
            if recheck is None or recheck.error is not error:
                raise
        finally:
            if recheck is not None:
                recheck.stop()

    def _socket_recheck(self, handle: SessionHandle, receive: Receive, send: Send) -> SocketRecheck | None:
        if self._recheck is None:
            return None
        from mks_hardening.asgi._socket_recheck import SocketRecheck  # on use: it loads asyncio

        return SocketRecheck(self._gate, self._recheck, handle, receive, send)

    def _hide_cookies(self, scope: dict[str, Any], cookies: str) -> None:
        visible = self._gate.visible_cookies(cookies)
        headers = [field for field in scope["headers"] if field[0].lower() != b"cookie"]
        if visible:
            headers.append((b"cookie", visible.encode("latin-1")))
        scope["headers"] = headers


def _stepped(message: Message, handle: SessionHandle) -> Message:
    """Return the message with the header fields of the session."""
    status = message.get("status")
    headers = decoded(raw_headers(message))
    stepped = handle.step("" if status is None else f"{status}", headers)
    changed = with_headers(message, encoded(headers))
    return changed if status is None else {**changed, "status": int(stepped[:3])}


def _session_request(scope: dict[str, Any]) -> SessionRequest:
    return SessionRequest(
        scope,
        method=method_of(scope, websocket=WEBSOCKET),
        mount=mount_of(scope),
        path=path_below_mount(scope),
        query=query_of(scope),
        accept=header(scope, b"accept") or "",
        requested_with=header(scope, b"x-requested-with") or "",
        destination=header(scope, b"sec-fetch-dest") or "",
    )
