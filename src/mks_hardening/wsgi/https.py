"""Everything over HTTPS, and only for hosts that are listed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core import hooks
from mks_hardening._core.hostname import authority
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin import ORIGIN_KEY, ProxyTrust, RequestOrigin
from mks_hardening.events import RequestRefused
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi._answers import FixedAnswer, Refusal
from mks_hardening.wsgi._hosts import AllowedHosts, host_from_settings
from mks_hardening.wsgi._paths import PathRules, exemptions
from mks_hardening.wsgi._target import request_target

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["HTTPSRedirectMiddleware"]

_BAD_HOST: Final = Refusal(400, "This server does not answer for the requested host.")
_PLAIN_API: Final = Refusal(403, "This resource is available over HTTPS only.")
_MOVED: Final = "This page has moved; follow the Location field.\n"
_TEXT: Final = "text/plain; charset=utf-8"


class _Request(NamedTuple):
    """What the decision looks at."""

    origin: RequestOrigin
    method: str
    mount: str
    path: str
    query: str
    names_host: bool


class HTTPSRedirectMiddleware:
    """Redirects plain HTTP to HTTPS, and refuses hosts that are not listed with 400, over HTTPS as well.

    GET and HEAD get 301, other methods 308, which keeps method and body (302 and 307 with ``permanent=False``).
    The target is built from the list, never from an unchecked ``Host``; the port of the plain connection is not
    copied into it.

    Paths in ``exempt_paths``, ``probe_paths`` and ``api_paths`` are compared with the path below the mount point,
    exactly, or as whole folders where they end in a slash; a path with empty or dot segments or backslashes is
    never exempt.

    Args:
        app: the WSGI application.
        allowed_hosts: hosts the application answers for; ``.example.com`` stands for it and everything below.
        force_https: ``False`` checks the host alone.
        trust: which proxies may name scheme and host, by default none; not needed inside
            ``TrustedProxyMiddleware``.
        https_port: port of the target.
        permanent: whether the answer may be remembered.
        canonical_host: the one listed host that requests for the others are sent to.
        exempt_paths: answered over plain HTTP.
        probe_paths: answered over plain HTTP and for any well-formed host, or none: probes call a pod by address.
        api_paths: refused over plain HTTP with 403, so that a client with a wrong URL is noticed (ASVS 5.0 V4.1.2).

    Raises:
        ConfigurationError: no host or a malformed one, ``canonical_host`` not listed, a port out of range, a path
            without leading slash, an exemption for everything.

    Source: RFC 9110 (15.4), RFC 3986; ASVS 5.0 V3.7.2, V4.1.2, V12.2.1.
    """

    __slots__ = ("_answers", "_api", "_app", "_bases", "_canonical", "_exempt", "_force", "_hosts", "_origin",
                 "_permanent", "_port", "_probes")  # fmt: skip

    def __init__(
        self,
        app: WSGIApplication,
        *,
        allowed_hosts: Iterable[str],
        force_https: bool = True,
        trust: ProxyTrust | None = None,
        https_port: int = 443,
        permanent: bool = True,
        canonical_host: str | None = None,
        exempt_paths: Iterable[str] = ("/.well-known/acme-challenge/",),
        probe_paths: Iterable[str] = ("/livez", "/readyz"),
        api_paths: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._hosts = AllowedHosts(allowed_hosts)
        self._force = force_https
        self._origin = (trust or ProxyTrust()).admit
        self._port = _checked_port(https_port)
        self._permanent = permanent
        self._canonical = self._listed(canonical_host)
        self._exempt = exemptions(exempt_paths, parameter="exempt_paths")
        self._probes = exemptions(probe_paths, parameter="probe_paths")
        self._api = PathRules(api_paths, parameter="api_paths")
        self._bases = Memo(self._base)
        self._answers = Memo(self._answer, entries=1024, longest=1024)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        origin = environ.get(ORIGIN_KEY) or self._origin(environ)
        if self._bases[origin] is None:
            return self._app(environ, start_response)
        get = environ.get
        answer = self._answers[
            origin,
            environ["REQUEST_METHOD"],
            get("SCRIPT_NAME", ""),
            get("PATH_INFO", ""),
            get("QUERY_STRING", ""),
            "HTTP_HOST" in environ,
        ]
        if answer is None:
            return self._app(environ, start_response)
        if hooks.observers and isinstance(answer, Refusal):
            hooks.emit(RequestRefused("https", "host" if answer is _BAD_HOST else "plain", origin.client_ip))
        return answer.send(environ, start_response)

    def _answer(
        self, question: tuple[RequestOrigin, str, str, str, str, bool]
    ) -> FixedAnswer | Refusal | None:
        """What to answer in place of the application; ``None`` lets the request pass."""
        request = _Request(*question)
        origin, path = request.origin, request.path
        base = self._bases[origin]
        probe = self._probes.match(path)
        if not base:
            well_formed = origin.host or not request.names_host
            return None if base is None or (probe and well_formed) else _BAD_HOST
        if probe or self._exempt.match(path):
            return None
        if self._force and origin.scheme == "http" and self._api.covers(path):
            return _PLAIN_API
        location = base + request_target(request.mount, path, request.query)
        return FixedAnswer(self._status(request.method), _MOVED, _TEXT, [("Location", location)])

    def _status(self, method: str) -> int:
        if method in ("GET", "HEAD"):
            return 301 if self._permanent else 302
        return 308 if self._permanent else 307

    def _base(self, origin: RequestOrigin) -> str | None:
        """What to put before a new target; ``None`` when none is needed, empty when the host is not listed."""
        if not self._hosts.lists(origin.host, origin.port):
            return ""
        host = self._canonical or origin.host
        secure = origin.scheme == "https"
        if host == origin.host and (secure or not self._force):
            return None
        if secure or self._force:
            return f"https://{authority('https', host, self._port)}"
        return f"http://{authority('http', host, origin.port)}"

    def _listed(self, canonical: str | None) -> str | None:
        if canonical is None:
            return None
        name, port = host_from_settings(canonical, parameter="canonical_host")
        if port is not None or not self._hosts.lists(name, self._port):
            raise ConfigurationError(
                "canonical_host must be one of allowed_hosts, without a port", parameter="canonical_host"
            )
        return name


def _checked_port(port: int) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ConfigurationError("https_port must be a number from 1 to 65535", parameter="https_port")
    return port
