"""Rules for HTTPS redirects and allowed hosts, on plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.checks import boolean, port_number
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.hostname import authority
from mks_hardening._core.web.paths import PathRules, exemptions
from mks_hardening._edge.https.allowed_hosts import AllowedHosts, host_from_settings
from mks_hardening._edge.https.redirect_target import request_target
from mks_hardening._edge.refusal_response import FixedResponse, RefusalResponse
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._core.origin.request_origin import RequestOrigin

__all__ = ["BAD_HOST", "PLAIN", "PLAIN_HTTP", "HTTPSRedirect", "HTTPSRules", "RequestedUrl"]

PLAIN_HTTP: Final = RefusalResponse("plain", 403, "This resource is available over HTTPS only.")
_REFUSALS: Final = {
    "host": RefusalResponse(
        "host", 400, "This server does not serve the requested host.", setting="MKS_ALLOWED_HOSTS"
    ),
    "plain": PLAIN_HTTP,
}
_MOVED: Final = "This page has moved; follow the Location field.\n"

BAD_HOST: Final = "host"
"""The host is not allowed."""

PLAIN: Final = "plain"
"""An API was requested over plain HTTP."""


class RequestedUrl(NamedTuple):
    """The parts of a request that the rules use."""

    origin: RequestOrigin
    method: str
    mount: str
    path: str
    query: str
    names_host: bool
    sent: str = ""


class HTTPSRedirect(NamedTuple):
    """Status and target of a redirect."""

    status: int
    location: str


# The parts of a RequestedUrl as a plain tuple, which costs less to make.
_Url = tuple["RequestOrigin", str, str, str, str, bool, str]


class HTTPSRules:
    """The rules of ``HTTPSRedirectMiddleware``, with the same arguments.

    Attributes:
        bases: the URL prefix of redirects by the origin of a request; ``None`` if all its requests pass, which is
            the common case.
        responses: the redirect or the reason to refuse a request by the parts of its ``RequestedUrl``; ``None`` to
            let it pass.
    """

    __slots__ = (
        "_api",
        "_canonical",
        "_exempt",
        "_force",
        "_hosts",
        "_permanent",
        "_port",
        "_probes",
        "bases",
        "responses",
    )

    def __init__(
        self,
        *,
        allowed_hosts: Iterable[str],
        force_https: bool,
        https_port: int,
        permanent: bool,
        canonical_host: str | None,
        exempt_paths: Iterable[str],
        probe_paths: Iterable[str],
        api_paths: Iterable[str],
    ) -> None:
        self._hosts = AllowedHosts(allowed_hosts)
        self._force = boolean(force_https, parameter="force_https")
        self._port = port_number(https_port, parameter="https_port")
        self._permanent = boolean(permanent, parameter="permanent")
        self._canonical = self._listed(canonical_host)
        self._exempt = exemptions(exempt_paths, parameter="exempt_paths")
        self._probes = exemptions(probe_paths, parameter="probe_paths")
        self._api = PathRules(api_paths, parameter="api_paths")
        self.bases: Memo[RequestOrigin, str | None] = Memo(self._base)
        # Clients choose the values of a request, so the cache is bounded.
        self.responses: Memo[_Url, FixedResponse | RefusalResponse | None] = Memo(
            self._response, entries=1024, longest=1024
        )

    def _response(self, asked: _Url) -> FixedResponse | RefusalResponse | None:
        verdict = self.verdict(RequestedUrl(*asked))
        if isinstance(verdict, HTTPSRedirect):
            location = [("Location", verdict.location)]
            return FixedResponse(verdict.status, _MOVED, "text/plain; charset=utf-8", location)
        return None if verdict is None else _REFUSALS[verdict]

    def verdict(self, asked: RequestedUrl) -> HTTPSRedirect | str | None:
        """Return a redirect, the name of the rule that refuses the request, or ``None`` to let it pass."""
        origin, path = asked.origin, asked.path
        base = self.bases[origin]
        probe = self._probes.match(path)
        if not base:
            well_formed = origin.host or not asked.names_host
            return None if base is None or (probe and well_formed) else BAD_HOST
        # Exempt paths require an allowed host; probe paths do not, because probes address a pod by IP address.
        if probe or self._exempt.match(path):
            return None
        if self._force and origin.scheme == "http" and self._api.covers(path):
            return PLAIN
        target = request_target(asked.mount, path, asked.query, sent=asked.sent)
        return HTTPSRedirect(self._status(asked.method), base + target)

    def _status(self, method: str) -> int:
        if method in ("GET", "HEAD"):
            return 301 if self._permanent else 302
        # Clients may turn POST into GET and lose its body after 301 and 302 (RFC 9110, 15.4.2 and 15.4.3).
        return 308 if self._permanent else 307

    def _base(self, origin: RequestOrigin) -> str | None:
        """Return the URL prefix for a redirect; ``None`` if none is needed, empty if the host is not allowed."""
        if not self._hosts.lists(origin.host, origin.port):
            return ""
        # From the allowed hosts, never from the Host field: that would be an open redirect (CWE-601).
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
