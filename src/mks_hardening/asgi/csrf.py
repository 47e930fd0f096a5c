"""Middleware against cross-site request forgery (CSRF)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from mks_hardening._core.origin.scope_trust import direct_origin
from mks_hardening._core.web.asgi_scope import REQUESTS, HeaderReader, header, path_below_mount
from mks_hardening._core.web.environ_keys import CSRF_TOKEN_KEY, ORIGIN_KEY, SESSION_KEY
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.csrf.csrf_rules import FORBIDDEN, CSRFRules
from mks_hardening._edge.csrf.form_field import FIELD, declared_length, form_field, is_form
from mks_hardening._edge.csrf.form_token import CSRFToken
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening._edge.safe_methods import SAFE_METHODS
from mks_hardening._edge.session.request_kind import WEBSOCKET
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._body_replay import read_body
from mks_hardening.asgi._messages import HEADS, decoded, encoded, raw_headers, send_response, with_headers

if TYPE_CHECKING:
    from mks_hardening._core.origin.request_origin import RequestOrigin
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.cors.cors_policy import CORSPolicy
    from mks_hardening._edge.csrf.same_origin import OriginError
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["CSRFMiddleware"]

_HEADER: Final = b"x-csrf-token"
_SENDER: Final = HeaderReader(b"host", b"cookie", b"authorization", b"origin", b"sec-fetch-site", b"referer")


class CSRFMiddleware:
    """Middleware that refuses cross-site requests with 403, except those with a safe method (GET, QUERY).

    The rules are those of ``mks_hardening.wsgi.CSRFMiddleware``. WebSockets are judged like unsafe requests: a page
    of another site could otherwise open one with the cookies of the user (CWE-1385). A form is read, up to
    ``max_form_bytes``, only if the request needs a token and has none in the header; the application receives the
    same body.

    ``str(scope["mks_hardening.csrf_token"])`` returns a form token, different each time. It is bound to the session
    if this middleware is inside ``SessionTimeoutMiddleware`` and the request has a session; otherwise to a
    ``__Host-csrf`` cookie that is set with the response. Read it before the response starts.

    Args:
        app: the ASGI application.
        allowed_origins: additional origins that may send requests, for example ``https://www.example.com``, or a
            ``CORSPolicy`` with ``credentials`` for all origins that it allows.
        exempt_paths: paths that are not checked, for example webhooks; a trailing slash includes everything below.
        max_form_bytes: larger forms must send the token in the header.
        secure_cookie: ``False`` names the cookie ``csrf`` and sends it over plain HTTP; for development only.
        on_refusal: takes the scope and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: an origin is malformed, a path does not begin with a slash, or an exemption matches
            every path.

    Source: OWASP CSRF Prevention Cheat Sheet; ASVS 5.0 V3.5.1, V4.4.2; CWE-352, CWE-1385.
    """

    __slots__ = ("_app", "_refuser", "_rules")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        allowed_origins: Iterable[str | CORSPolicy] = (),
        exempt_paths: Iterable[str] = (),
        max_form_bytes: int = 65536,
        secure_cookie: bool = True,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._rules = CSRFRules(
            allowed_origins=allowed_origins,
            exempt_paths=exempt_paths,
            max_form_bytes=max_form_bytes,
            secure_cookie=secure_cookie,
        )
        self._refuser = Refuser("csrf", on_refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        if scope["type"] not in REQUESTS:
            await self._app(scope, receive, send)
            return
        rules, inner = self._rules, private_scope(scope)
        # Also for safe requests: the page with the form is one.
        token = inner[CSRF_TOKEN_KEY] = CSRFToken(
            scope.get(SESSION_KEY),
            # The list instead of the scope, which would be part of a cycle.
            partial(header, {"headers": scope.get("headers")}, b"cookie"),
            secure=rules.secure_cookie,
        )
        # As method_of does, without its call: this decision is made for every request.
        method = scope.get("method", "") if scope["type"] == "http" else WEBSOCKET
        if method not in SAFE_METHODS and rules.checks(method, path_below_mount(scope)):
            host, cookies, authorization, sent_origin, fetch_site, referer = _SENDER.read(scope)
            origin: RequestOrigin = scope.get(ORIGIN_KEY) or direct_origin(scope, host=host)
            violation = rules.same_origin.violations[
                origin.scheme,
                origin.host,
                origin.port,
                sent_origin,
                fetch_site,
                referer,
                cookies is not None,
                authorization is not None and authorization[:7].lower() == "bearer ",
            ]
            if violation is not None and violation.rule == "token":
                given, receive = await self._given_token(scope, receive)
                if given is not None and token.accepts(given):
                    violation = None
            if violation is not None:
                response = self._refuser.refuse(
                    inner,
                    FORBIDDEN[violation.rule],
                    accept=header(scope, b"accept") or "",
                    seen=violation.seen or _seen(scope, violation),
                    client_ip=origin.client_ip,
                )
                await send_response(scope, send, response)
                return

        async def send_with_token(message: Message) -> None:
            if token.was_read and message["type"] in HEADS:
                headers = decoded(raw_headers(message))
                token.step("", headers)
                message = with_headers(message, encoded(headers))
            await send(message)

        await self._app(inner, receive, send_with_token)

    async def _given_token(self, scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
        """Return the token of the request, and the ``receive`` with which the application reads the whole body."""
        # Header first: reading a form loads its body into memory.
        given = header(scope, _HEADER)
        if given is not None or scope["type"] != "http":
            return given, receive
        kind = header(scope, b"content-type") or ""
        length = declared_length(header(scope, b"content-length"), limit=self._rules.max_form_bytes)
        if length is None or not is_form(kind):
            return None, receive
        body, receive = await read_body(receive, limit=length)
        return None if body is None else form_field(body, kind, FIELD), receive


def _seen(scope: Scope, violation: OriginError) -> str:
    if violation.rule != "token":
        return "an empty field"
    # Do not log the value: it may be the valid token of another session.
    return "no valid token" if header(scope, _HEADER) is None else "wrong header"
