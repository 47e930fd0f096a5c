"""HTTP caching rules, applied to header fields: freshness, variants, conditional requests.

Sources: RFC 9111 (caching), RFC 9110 (conditional requests).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = [
    "Headers",
    "directives",
    "header",
    "is_not_modified",
    "lifetime",
    "not_storable_reason",
    "storable_headers",
    "variant_names",
    "without_content",
]

Headers = Sequence[tuple[str, str]]

# Specific to one connection or one response rather than the content (RFC 9111, 3.1).
_NOT_KEPT: Final = frozenset(
    {
        "age",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
    }
    | {"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id", "server-timing"}
    # Specific to one client: its remaining quotas and session time.
    | {"ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}
    | {"x-session-expires-in"}
)
_DIRECTIVE: Final = re.compile(
    r'([A-Za-z0-9!#$%&\'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;]*)))?'
)
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


def header(headers: Headers, name: str) -> str:
    """Return all values of a field, joined by commas (RFC 9110, 5.3)."""
    return ", ".join(value for field, value in headers if field.lower() == name)


def directives(cache_control: str) -> dict[str, str]:
    """Parse a Cache-Control field; names are in lower case, and contradictory values become 0.

    Source: RFC 9111, 4.2.1: a response with two values of ``max-age`` should be considered stale.
    """
    found: dict[str, str] = {}
    for name, quoted, plain in _DIRECTIVE.findall(cache_control):
        value = quoted or plain or ""
        found[name.lower()] = value if found.setdefault(name.lower(), value) == value else "0"
    return found


def not_storable_reason(status: str, headers: Headers, *, personal: bool) -> str | None:
    """Return why a response must not be stored, or None. ``personal``: the key includes the user's identity."""
    control = directives(header(headers, "cache-control"))
    vary = variant_names(headers)
    if not status.startswith("200"):
        return "status"
    # A cookie belongs to one user; a stored one would sign everybody in as that user.
    if header(headers, "set-cookie"):
        return "set-cookie"
    if vary is None:
        return "vary"
    if "no-store" in control or "no-cache" in control:
        return "no-store"
    if "private" in control and not personal:
        return "private"
    if header(headers, "content-range"):
        return "partial"
    return None


def variant_names(headers: Headers) -> tuple[str, ...] | None:
    """Return the request fields that a response depends on, or None for ``Vary: *``."""
    names = {name.strip().lower() for name in header(headers, "vary").split(",")} - {""}
    return None if "*" in names else tuple(sorted(names))


def lifetime(headers: Headers, *, ttl: float, now: float) -> float:
    """Return the seconds a response is fresh: as it states, at most ``ttl``, less the age it arrived with."""
    control = directives(header(headers, "cache-control"))
    # s-maxage takes precedence in a shared cache (RFC 9111, 5.2.2.10).
    lifetimes = [_whole_seconds(control[name]) for name in ("s-maxage", "max-age") if name in control][:1]
    if not lifetimes and header(headers, "expires"):
        lifetimes = [_expires(headers, now)]
    age = _whole_seconds(header(headers, "age")) if header(headers, "age") else 0.0
    return max(0.0, min([ttl, *lifetimes]) - age)


def _whole_seconds(text: str) -> float:
    """Parse delta-seconds; an invalid value counts as stale (RFC 9111, 4.2.1)."""
    # Ten digits are three centuries; more could only become infinity.
    return float(text[:10]) if text.isascii() and text.isdecimal() else 0.0


def _expires(headers: Headers, now: float) -> float:
    expires = _moment(header(headers, "expires"))
    return 0.0 if expires is None else expires - (_moment(header(headers, "date")) or now)


def _moment(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (OverflowError, TypeError, ValueError):
        return None


def storable_headers(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields that belong to the content, as plain strings: frameworks pass subclasses of ``str``."""
    named = {name.strip().lower() for name in header(headers, "connection").split(",")}
    return [(str(name), str(value)) for name, value in headers if name.lower() not in _NOT_KEPT | named]


def is_not_modified(environ: Mapping[str, str], headers: Headers) -> bool:
    """Return whether the client's copy is current (RFC 9110, 13.2.2)."""
    # Takes precedence over If-Modified-Since, whose seconds may not tell two versions apart (RFC 9110, 13.1.3).
    if "HTTP_IF_NONE_MATCH" in environ:
        wanted = environ["HTTP_IF_NONE_MATCH"].strip()
        own = _ENTITY_TAG.fullmatch(header(headers, "etag"))
        return wanted == "*" or (own is not None and own[1] in _ENTITY_TAG.findall(wanted))
    since = _moment(environ.get("HTTP_IF_MODIFIED_SINCE", ""))
    modified = _moment(header(headers, "last-modified"))
    return since is not None and modified is not None and modified <= since


def without_content(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a 304 response: none that describes the omitted body (RFC 9110, 15.4.5)."""
    left_out = {"content-length", "content-type", "content-encoding", "content-language", "transfer-encoding"}
    return [(name, value) for name, value in headers if name.lower() not in left_out]
