"""Refuses requests that another site makes a browser send."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core import hooks
from mks_hardening._core.hostname import authority, parse_host
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin import request_origin
from mks_hardening.events import RequestRefused
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._answers import Refusal
from mks_hardening.wsgi._form_field import read_form_field
from mks_hardening.wsgi._paths import exemptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.wsgi_iter import ExcInfo, Headers
__all__ = ["CSRFMiddleware", "CSRFToken"]

TOKEN_KEY: Final = "mks_hardening.csrf_token"  # noqa: S105 - the name of a key
FIELD: Final = "csrf_token"

_SESSION_KEY: Final = "mks_hardening.session"
_HEADER: Final = "HTTP_X_CSRF_TOKEN"
_COOKIE: Final = "__Host-csrf"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OWN_SITE: Final = frozenset({"same-origin", "none"})  # "none": typed, bookmarked; no page can cause it
_URL: Final = re.compile(r"(https?)://([^/?#@\\\s]{1,300})(?=[/?#]|\Z)", re.IGNORECASE)
_SECRET: Final = re.compile(r"[0-9a-f]{64}")
_FORBIDDEN: Final = Refusal(
    403, "This request seems to come from another site. Reload the page and try again."
)


class _Request(NamedTuple):
    """What the decision looks at; absent header fields are ``None``."""

    method: str
    path: str
    origin: str | None
    fetch_site: str | None
    referer: str | None
    has_cookies: bool
    has_bearer: bool


class CSRFMiddleware:
    """Refuses unsafe requests (all but GET, HEAD, OPTIONS, TRACE) that come from another site, with 403.

    The first that is there decides: ``Origin`` must be listed; ``Sec-Fetch-Site`` must be ``same-origin`` or
    ``none`` (it also speaks for ``Origin: null``, which browsers send from pages with ``no-referrer``);
    ``Referer`` must be of a listed origin. When none of them comes, a request with cookies needs a token: the
    header ``X-CSRF-Token``, or the field ``csrf_token`` of a form. Requests with a bearer token and no cookie pass.

    ``str(environ["mks_hardening.csrf_token"])`` is a token for a form, new each time it is asked for. It is bound
    to the session when this wrapper stands inside ``SessionTimeoutMiddleware`` and there is one, otherwise to a
    ``__Host-csrf`` cookie, which is set with the answer; ask for it before the answer starts.

    Args:
        app: the WSGI application.
        allowed_origins: origins of the pages that may send requests, for example ``https://www.example.com``.
        exempt_paths: paths (a trailing slash means the folder) that are not checked, for example webhooks.
        max_form_bytes: forms above this size must send the token as a header.

    Raises:
        ConfigurationError: no origin or a malformed one, a path without leading slash, an exemption of everything.

    Source: OWASP CSRF Prevention Cheat Sheet; ASVS 5.0 V3.5.1; CWE-352.
    """

    __slots__ = ("_app", "_exempt", "_listed", "_max_form_bytes", "_origins")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        allowed_origins: Iterable[str],
        exempt_paths: Iterable[str] = (),
        max_form_bytes: int = 65536,
    ) -> None:
        self._app = app
        self._listed = _origins(allowed_origins)
        self._exempt = exemptions(exempt_paths, parameter="exempt_paths")
        if isinstance(max_form_bytes, bool) or not isinstance(max_form_bytes, int) or max_form_bytes < 0:
            raise ConfigurationError("max_form_bytes must be a number of bytes", parameter="max_form_bytes")
        self._max_form_bytes = max_form_bytes
        self._origins = Memo(self._is_listed)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        token = environ[TOKEN_KEY] = CSRFToken(environ)
        if environ["REQUEST_METHOD"] not in _SAFE_METHODS:
            reason = self._fault(_request(environ))
            if reason == "token" and self._has_token(environ, token):
                reason = None
            if reason is not None:
                if hooks.observers:
                    hooks.emit(RequestRefused("csrf", reason, request_origin(environ).client_ip))
                return _FORBIDDEN.send(environ, start_response)

        def start(
            status: str, headers: Headers, exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            return start_response(status, [*headers, *token.headers()], exc_info)

        return self._app(environ, start)

    def _fault(self, request: _Request) -> str | None:
        """Why the request may not pass, in one word; ``"token"`` leaves it to the token."""
        if self._exempt.match(request.path) or (request.has_bearer and not request.has_cookies):
            return None
        if request.origin is not None and not (request.origin == "null" and request.fetch_site):
            return None if self._origins[request.origin] else "origin"
        if request.fetch_site is not None:
            return None if request.fetch_site in _OWN_SITE else "fetch_site"
        if request.referer is not None:
            return None if _origin(request.referer) in self._listed else "referer"
        return "token" if request.has_cookies else None

    def _is_listed(self, origin: str) -> bool:
        found = _URL.fullmatch(origin)
        return found is not None and _origin(origin) in self._listed

    def _has_token(self, environ: WSGIEnvironment, token: CSRFToken) -> bool:
        given = environ.get(_HEADER)
        if given is None:
            given = read_form_field(environ, FIELD, limit=self._max_form_bytes)
        return given is not None and token.accepts(given)


class CSRFToken:
    """A token for the forms of one request; ``str()`` gives it, in a new disguise each time (against BREACH)."""

    __slots__ = ("_asked", "_environ", "_new_secret")

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
        self._asked = False
        self._new_secret = ""

    def __str__(self) -> str:
        self._asked = True
        secret = self._secret()
        if not secret:
            secret = self._new_secret = os.urandom(32).hex()
        mask = os.urandom(_MAC_BYTES)
        return (mask + _xor(mask, _mac(secret))).hex()

    def __html__(self) -> str:
        """The token as it is; template engines ask this instead of escaping."""
        return str(self)

    def __call__(self) -> str:
        """The same, for templates that call what they show."""
        return str(self)

    def accepts(self, given: str) -> bool:
        """Whether ``given`` is a token for this session, or for this browser where there is none."""
        secret = self._secret()
        if not secret or not _SECRET.fullmatch(given):
            return False
        raw = bytes.fromhex(given)
        return hmac.compare_digest(_xor(raw[:_MAC_BYTES], raw[_MAC_BYTES:]), _mac(secret))

    def headers(self) -> list[tuple[str, str]]:
        """What the answer must carry because a token was asked for."""
        if not self._asked:
            return []
        headers = [("Vary", "Cookie")]
        if self._new_secret:
            cookie = f"{_COOKIE}={self._new_secret}; Path=/; Secure; HttpOnly; SameSite=Lax"
            headers.append(("Set-Cookie", cookie))
        return headers

    def _secret(self) -> str:
        session = self._environ.get(_SESSION_KEY)
        of_session: str | None = getattr(session, "csrf_token", None)
        return of_session or self._new_secret or _cookie(self._environ.get("HTTP_COOKIE", ""))


_MAC_BYTES: Final = 16


def _mac(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"mks_hardening.csrf", "sha256")[:_MAC_BYTES]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _cookie(header: str) -> str:
    """The secret in the cookie; empty when there is none, or when two cookies claim the name."""
    pairs = [part.strip(" \t").partition("=") for part in header.split(";") if _COOKIE in part]
    values = {value for name, _, value in pairs if name == _COOKIE}
    value = values.pop() if len(values) == 1 else ""
    return value if _SECRET.fullmatch(value) else ""


def _request(environ: WSGIEnvironment) -> _Request:
    get = environ.get
    return _Request(
        method=environ["REQUEST_METHOD"],
        path=get("PATH_INFO", ""),
        origin=get("HTTP_ORIGIN"),
        fetch_site=get("HTTP_SEC_FETCH_SITE"),
        referer=get("HTTP_REFERER"),
        has_cookies="HTTP_COOKIE" in environ,
        has_bearer=get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer ",
    )


def _origin(url: str) -> str | None:
    """The origin of a URL in its one spelling."""
    found = _URL.match(url)
    host = parse_host(found[2]) if found else None
    if found is None or host is None:
        return None
    scheme = found[1].lower()
    return f"{scheme}://{authority(scheme, *host)}"


def _origins(allowed: Iterable[str]) -> frozenset[str]:
    if isinstance(allowed, str):
        raise ConfigurationError("allowed_origins must be a list, not one str", parameter="allowed_origins")
    listed: set[str] = set()
    for url in allowed:
        origin = _origin(url) if isinstance(url, str) and _URL.fullmatch(url) else None
        if origin is None:
            raise ConfigurationError(
                "allowed_origins must hold origins such as 'https://www.example.com', without a path",
                parameter="allowed_origins",
            )
        listed.add(origin)
    if not listed:
        raise ConfigurationError("allowed_origins must name at least one origin", parameter="allowed_origins")
    return frozenset(listed)
