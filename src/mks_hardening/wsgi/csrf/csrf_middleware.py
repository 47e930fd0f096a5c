"""Middleware against cross-site request forgery (CSRF)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.environ_keys import CSRF_TOKEN_KEY, SESSION_KEY
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.csrf.csrf_rules import FORBIDDEN, CSRFRules
from mks_hardening._edge.csrf.form_field import FIELD
from mks_hardening._edge.csrf.form_token import CSRFToken
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.wsgi._send_response import send_response
from mks_hardening.wsgi.csrf._form_body import read_form_field

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.cors.cors_policy import CORSPolicy
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["CSRFMiddleware"]


_HEADER: Final = "HTTP_X_CSRF_TOKEN"


class CSRFMiddleware:
    """Middleware that refuses cross-site requests with 403, except those with a safe method (GET, QUERY).

    The first field that is present decides:

    - ``Origin`` must be the origin that the request is addressed to, or one of ``allowed_origins``.
    - ``Sec-Fetch-Site`` must be ``same-origin`` or ``none``; it is also used for ``Origin: null``, which browsers
      send from pages with ``no-referrer``.
    - ``Referer`` must have such an origin.

    Without these fields, a request with cookies needs a token, in the header ``X-CSRF-Token`` or in the form field
    ``csrf_token``. Requests with a bearer token and without cookies always pass.

    The origin that a request is addressed to comes from trusted proxies and the ``Host`` field, so use
    ``HTTPSRedirectMiddleware`` to refuse unknown hosts. If a proxy reports neither scheme nor port,
    ``Sec-Fetch-Site: same-origin`` allows the host's other schemes and ports.

    ``str(environ["mks_hardening.csrf_token"])`` returns a form token, different each time. It is bound to the
    session if this middleware is inside ``SessionTimeoutMiddleware`` and the request has a session; otherwise to a
    ``__Host-csrf`` cookie that is set with the response. Read it before the response starts.

    Args:
        app: the WSGI application.
        allowed_origins: additional origins that may send requests, for example ``https://www.example.com``, or a
            ``CORSPolicy`` with ``credentials`` for all origins that it allows.
        exempt_paths: paths that are not checked, for example webhooks; a trailing slash includes everything below.
        max_form_bytes: larger forms must send the token in the header.
        secure_cookie: ``False`` names the cookie ``csrf`` and sends it over plain HTTP; for development only.
        on_refusal: takes the environ and the ``Refusal`` and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: an origin is malformed, a path does not begin with a slash, or an exemption matches
            every path.

    Source: OWASP CSRF Prevention Cheat Sheet; ASVS 5.0 V3.5.1; CWE-352.
    """

    __slots__ = ("_app", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        allowed_origins: Iterable[str | CORSPolicy] = (),
        exempt_paths: Iterable[str] = (),
        max_form_bytes: int = 65536,
        secure_cookie: bool = True,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._rules = CSRFRules(
            allowed_origins=allowed_origins,
            exempt_paths=exempt_paths,
            max_form_bytes=max_form_bytes,
            secure_cookie=secure_cookie,
        )
        self._refuser = Refuser("csrf", on_refusal)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        rules = self._rules
        # Also for safe requests: the page with the form is one.
        token = environ[CSRF_TOKEN_KEY] = CSRFToken(
            environ.get(SESSION_KEY), environ.get("HTTP_COOKIE", ""), secure=rules.secure_cookie
        )
        if rules.checks(environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")):
            violation = rules.same_origin.violations[_sender(environ)]
            if violation is not None and not (violation.rule == "token" and self._has_token(environ, token)):
                response = self._refuser.refuse(
                    environ,
                    FORBIDDEN[violation.rule],
                    accept=environ.get("HTTP_ACCEPT", ""),
                    seen=violation.seen or _given(environ, violation.rule),
                    client_ip=request_origin(environ).client_ip,
                )
                return send_response(environ, start_response, response)
        return self._app(environ, with_step(start_response, token.step))

    def _has_token(self, environ: WSGIEnvironment, token: CSRFToken) -> bool:
        # Header first: reading a form loads its body into memory.
        given = environ.get(_HEADER)
        if given is None:
            given = read_form_field(environ, FIELD, limit=self._rules.max_form_bytes)
        return given is not None and token.accepts(given)


def _given(environ: WSGIEnvironment, rule: str) -> str:
    if rule != "token":
        return "an empty field"
    # Do not log the value: it may be the valid token of another session.
    return "wrong header" if _HEADER in environ else "no valid token"


def _sender(environ: WSGIEnvironment) -> tuple[str, str, int, str | None, str | None, str | None, bool, bool]:
    """Return the parts of a ``RequestSender``."""
    get = environ.get
    origin = request_origin(environ)
    return (
        origin.scheme,
        origin.host,
        origin.port,
        get("HTTP_ORIGIN"),
        get("HTTP_SEC_FETCH_SITE"),
        get("HTTP_REFERER"),
        "HTTP_COOKIE" in environ,
        get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer ",
    )
