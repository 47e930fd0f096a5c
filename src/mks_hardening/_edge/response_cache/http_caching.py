"""HTTP caching rules, applied to header fields: freshness, variants, conditional requests.

Sources: RFC 9111 (caching), RFC 9110 (conditional requests), RFC 5861 (stale responses).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from mks_hardening._core.memo import Memo

__all__ = [
    "ERRORS",
    "Headers",
    "RequestDirectives",
    "directives",
    "header",
    "is_not_modified",
    "lifetime",
    "may_be_stale",
    "not_storable_reason",
    "request_directives",
    "stale_windows",
    "storable_headers",
    "updated_headers",
    "variant_names",
    "without_content",
]

Headers = Sequence[tuple[str, str]]

ERRORS: Final = frozenset({500, 502, 503, 504})
"""Statuses in place of which a stale response may be served (RFC 5861, 4)."""

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
# Fields of a 304 that do not describe the stored content (RFC 9111, 3.2).
_NOT_UPDATED: Final = frozenset({"content-encoding", "content-length", "content-range", "content-type"})
# A cache that does not know whether the origin can be reached must not serve it stale (RFC 9111, 4.2.4; s-maxage
# has the meaning of proxy-revalidate, 5.2.2.10).
_NEVER_STALE: Final = frozenset({"must-revalidate", "no-cache", "proxy-revalidate", "s-maxage"})
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


class RequestDirectives(NamedTuple):
    """What a client asks of a cache (RFC 9111, 5.2.1)."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float = 0.0
    max_stale: float = 0.0
    stale_if_error: float = 0.0

    @property
    def is_demanding(self) -> bool:
        """Whether the client excludes responses that a cache would serve by itself."""
        return self.no_cache or self.max_age is not None or self.min_fresh > 0


def request_directives(cache_control: str | None, pragma: str) -> RequestDirectives:
    """Parse the directives of a request.

    Args:
        cache_control: value of ``Cache-Control``, None if the request has none.
        pragma: value of ``Pragma``, which counts only without ``Cache-Control`` (RFC 9111, 5.4).
    """
    if cache_control is None:
        return _NO_CACHE if "no-cache" in pragma.lower() else _NO_DIRECTIVES
    return _DIRECTIVES[cache_control]


def _parsed(cache_control: str) -> RequestDirectives:
    found = directives(cache_control)
    stale = found.get("max-stale")
    return RequestDirectives(
        no_store="no-store" in found,
        no_cache="no-cache" in found,
        only_if_cached="only-if-cached" in found,
        max_age=_whole_seconds(found["max-age"]) if found.get("max-age", "").isdecimal() else None,
        min_fresh=_whole_seconds(found.get("min-fresh", "")),
        # Without a value, the client accepts a response of any age.
        max_stale=inf if stale == "" else _whole_seconds(stale or ""),
        stale_if_error=_whole_seconds(found.get("stale-if-error", "")),
    )


_NO_DIRECTIVES: Final = RequestDirectives()
_NO_CACHE: Final = RequestDirectives(no_cache=True)
_DIRECTIVES: Final[Memo[str, RequestDirectives]] = Memo(_parsed, entries=256)


def not_storable_reason(status: int, headers: Headers, *, personal: bool) -> str | None:
    """Return why a response must not be stored, or None. ``personal``: the key includes the user's identity."""
    control = directives(header(headers, "cache-control"))
    vary = variant_names(headers)
    if status != 200:
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


def may_be_stale(headers: Headers) -> bool:
    """Return whether a cache may serve the response after its lifetime to a client that accepts it."""
    return _NEVER_STALE.isdisjoint(directives(header(headers, "cache-control")))


def stale_windows(
    headers: Headers, *, while_revalidate: float | None, if_error: float | None
) -> tuple[float, float]:
    """Return for how many seconds a stale response may be served: while a new one is made, and instead of an error.

    Args:
        headers: header fields of the response.
        while_revalidate: limit of the rule; None: as the response states.
        if_error: the same for errors.
    """
    if not may_be_stale(headers):
        return 0.0, 0.0
    control = directives(header(headers, "cache-control"))
    return (
        _window(control, "stale-while-revalidate", while_revalidate),
        _window(control, "stale-if-error", if_error),
    )


def _window(control: Mapping[str, str], name: str, limit: float | None) -> float:
    if name not in control:
        return limit or 0.0
    stated = _whole_seconds(control[name])
    return stated if limit is None else min(stated, limit)


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


def updated_headers(stored: Headers, received: Headers) -> list[tuple[str, str]]:
    """Return the fields of a stored response after its validation by a 304 (RFC 9111, 3.2)."""
    fields = [(name, value) for name, value in received if name.lower() not in _NOT_UPDATED]
    replaced = {name.lower() for name, _ in fields}
    return [*((name, value) for name, value in stored if name.lower() not in replaced), *fields]


def is_not_modified(variables: Mapping[str, str], headers: Headers) -> bool:
    """Return whether the client's copy is current (RFC 9110, 13.2.2).

    Args:
        variables: the request, as in ``RequestHead``.
        headers: header fields of the response.
    """
    # Takes precedence over If-Modified-Since, whose seconds may not tell two versions apart (RFC 9110, 13.1.3).
    if "HTTP_IF_NONE_MATCH" in variables:
        wanted = variables["HTTP_IF_NONE_MATCH"].strip()
        own = _ENTITY_TAG.fullmatch(header(headers, "etag"))
        return wanted == "*" or (own is not None and own[1] in _ENTITY_TAG.findall(wanted))
    if "HTTP_IF_MODIFIED_SINCE" not in variables:
        return False
    since = _moment(variables["HTTP_IF_MODIFIED_SINCE"])
    modified = _moment(header(headers, "last-modified"))
    return since is not None and modified is not None and modified <= since


def without_content(headers: Headers) -> list[tuple[str, str]]:
    """Return the fields of a 304 response: none that describes the omitted body (RFC 9110, 15.4.5)."""
    left_out = {"content-length", "content-type", "content-encoding", "content-language", "transfer-encoding"}
    return [(name, value) for name, value in headers if name.lower() not in left_out]
