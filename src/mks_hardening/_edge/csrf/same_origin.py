"""Same-origin check of requests, on plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from mks_hardening._core.checks import strings
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.web_origin import WebOrigin, origin_of_url, parse_origin
from mks_hardening._edge.cors.cors_policy import CORSPolicy
from mks_hardening.exceptions import ConfigurationError

__all__ = ["OriginError", "RequestSender", "SameOrigin", "checked_origins"]

_OWN_SITE: Final = frozenset({"same-origin", "none"})  # "none": typed or bookmarked; no page can cause it


class RequestSender(NamedTuple):
    """What a request says about the page that sent it; missing header fields are ``None``."""

    scheme: str
    host: str
    port: int
    origin: str | None
    fetch_site: str | None
    referer: str | None
    has_cookies: bool
    has_bearer: bool


class OriginError(NamedTuple):
    """The rule that a request breaks (``origin``, ``fetch_site``, ``referer``), and the value that breaks it.

    The rule ``token`` means that the request needs a valid token.
    """

    rule: str
    seen: str


# The parts of a RequestSender as a plain tuple, which costs less to make.
_Sender = tuple[str, str, int, str | None, str | None, str | None, bool, bool]


class SameOrigin:
    """Allowed origins of requests: the origin that the request is addressed to, and those listed.

    Attributes:
        violations: maps the parts of a ``RequestSender`` to the reason why the request is refused, or ``None``.

    Raises:
        ConfigurationError: ``allowed_origins`` contains something that is neither an origin nor a ``CORSPolicy``
            with ``credentials``.
    """

    __slots__ = ("_listed", "_policies", "_read", "violations")

    def __init__(self, allowed_origins: Iterable[str | CORSPolicy]) -> None:
        self._read: Memo[str, WebOrigin | None] = Memo(parse_origin)
        allowed = checked_origins(allowed_origins)
        self._listed = _listed(item for item in allowed if isinstance(item, str))
        self._policies = tuple(item for item in allowed if isinstance(item, CORSPolicy))
        # Clients choose the values, so the cache is bounded.
        self.violations: Memo[_Sender, OriginError | None] = Memo(
            lambda sender: self.violation(RequestSender(*sender)), entries=1024, longest=1024
        )

    def violation(self, sender: RequestSender) -> OriginError | None:
        """Return why the request may not pass; ``None`` if it may."""
        origin, fetch_site = sender.origin, sender.fetch_site
        # Browsers do not add a bearer token by themselves, so another site cannot make them send one.
        if sender.has_bearer and not sender.has_cookies:
            return None
        # Browsers send "null" from pages with no-referrer; Sec-Fetch-Site is used instead.
        if origin is not None and not (origin == "null" and fetch_site):
            return None if self._may_send(origin, sender) else OriginError("origin", origin)
        if fetch_site is not None:
            return None if fetch_site in _OWN_SITE else OriginError("fetch_site", fetch_site)
        # Old browsers; only the origin is kept, because the path is not needed and may contain secrets.
        if sender.referer is not None:
            page = origin_of_url(sender.referer)
            return (
                None if page and self._may_send(page, sender) else OriginError("referer", page or "malformed")
            )
        return OriginError("token", "") if sender.has_cookies else None

    def _may_send(self, text: str, sender: RequestSender) -> bool:
        origin = self._read[text]
        if origin is None:
            return False
        if origin in self._listed or any(policy.grants(text) for policy in self._policies):
            return True
        if not sender.host or origin.host != sender.host:
            return False
        # A proxy may hide scheme and port from the application; the browser knows both.
        own = WebOrigin.of(sender.scheme, sender.host, sender.port)
        return origin == own or sender.fetch_site == "same-origin"


def checked_origins(allowed: Iterable[str | CORSPolicy]) -> tuple[str | CORSPolicy, ...]:
    """Return the origins and policies.

    Raises:
        ConfigurationError: something else is given, or a policy without ``credentials``: it keeps pages from
            reading a response, but browsers may send cookies with their requests all the same.
    """
    if isinstance(allowed, (str, bytes)) or not isinstance(allowed, Iterable):
        return strings(allowed, parameter="allowed_origins", of="origins")  # raises
    items = tuple(allowed)
    strings(
        [item for item in items if not isinstance(item, CORSPolicy)],
        parameter="allowed_origins",
        of="origins, or a CORSPolicy",
    )
    if not all(item.credentials for item in items if isinstance(item, CORSPolicy)):
        raise ConfigurationError(
            "allowed_origins: a CORSPolicy must have credentials=True; without, it keeps pages from reading "
            "responses, but not browsers from sending cookies",
            parameter="allowed_origins",
        )
    return items


def _listed(allowed: Iterable[str]) -> frozenset[WebOrigin]:
    listed: set[WebOrigin] = set()
    for url in allowed:
        origin = parse_origin(url)
        if origin is None:
            raise ConfigurationError(
                "allowed_origins must hold origins such as 'https://www.example.com', without a path",
                parameter="allowed_origins",
            )
        listed.add(origin)
    return frozenset(listed)
