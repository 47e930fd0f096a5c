"""What may be cached of HTTP, decided on plain values: requests, answers, freshness, variants, conditions.

Sources: RFC 9111 (caching), RFC 9110 (conditional requests).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from mks_hardening._core.durations import seconds
from mks_hardening.cache.entry import check_tags
from mks_hardening.cache.keys import canonical, digest
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = [
    "CacheRule",
    "answer_key",
    "directives",
    "header",
    "is_not_modified",
    "kept_headers",
    "lifetime",
    "request_obstacle",
    "response_obstacle",
    "variant_of",
]

Headers = Sequence[tuple[str, str]]

_CONDITIONS: Final = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")
# Belong to one connection or one answer, not to the content (RFC 9111, 3.1).
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
)
_DIRECTIVE: Final = re.compile(
    r'([A-Za-z0-9!#$%&\'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;]*)))?'
)
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


class CacheRule:
    """Which answers may be kept, and for whom.

    Args:
        path: the path, or its beginning followed by ``*``.
        ttl: seconds an answer is kept at most; ``Cache-Control`` and ``Expires`` of the answer can only shorten it.
        query: parameters the answer depends on; requests with others go past the cache. None: the whole query
            string.
        identity: takes the environ and returns what the answer depends on besides the URL (user, tenant), or None
            to go past the cache. Without it, requests with Cookie or Authorization go past the cache.
        tags: names for ``invalidate_tags``.

    Raises:
        ConfigurationError: a parameter is impossible.
    """

    __slots__ = ("identity", "path", "query", "tags", "ttl")

    def __init__(
        self,
        path: str,
        *,
        ttl: float | timedelta,
        query: Iterable[str] | None = None,
        identity: Callable[[WSGIEnvironment], object] | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path[:-1]:
            raise ConfigurationError("path must begin with / and have a * at its end only", parameter="path")
        if isinstance(query, str):
            raise ConfigurationError("query must be several names, not one text", parameter="query")
        self.path: str = path
        self.ttl: float = seconds(ttl, parameter="ttl", allow_zero=False)
        self.query: frozenset[str] | None = None if query is None else frozenset(query)
        self.identity: Callable[[WSGIEnvironment], object] | None = identity
        self.tags: tuple[str, ...] = check_tags(tags)

    def matches(self, path: str) -> bool:
        """Whether the rule speaks of this path."""
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path

    def __repr__(self) -> str:
        return f"CacheRule({self.path!r}, ttl={self.ttl:g})"


def header(headers: Headers, name: str) -> str:
    """All values of a field, joined by commas (RFC 9110, 5.3)."""
    return ", ".join(value for field, value in headers if field.lower() == name)


def directives(cache_control: str) -> dict[str, str]:
    """The directives of a Cache-Control field, names in lower case."""
    return {name.lower(): quoted or plain or "" for name, quoted, plain in _DIRECTIVE.findall(cache_control)}


def request_obstacle(environ: WSGIEnvironment, rule: CacheRule) -> str | None:
    """Why a request must go past the cache, or None."""
    if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
        return "method"
    if any(name in environ for name in _CONDITIONS):
        return "conditional"
    if rule.identity is None and environ.get("HTTP_AUTHORIZATION"):
        return "authorization"
    if rule.identity is None and environ.get("HTTP_COOKIE"):
        return "cookie"
    if "no-store" in directives(environ.get("HTTP_CACHE_CONTROL", "")):
        return "no-store"
    query = environ.get("QUERY_STRING", "")
    if rule.query is not None and any(name not in rule.query for name, _ in _parameters(query)):
        return "query"
    return None


def _parameters(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")


def answer_key(environ: WSGIEnvironment, rule: CacheRule, identity: object) -> str:
    """The key of a URL as one person (or nobody in particular) sees it.

    Parameters that are named by the rule may come in any order of names; everything else is taken as sent.

    Raises:
        CacheKeyError: the identity is not a plain value.
    """
    query: object = environ.get("QUERY_STRING", "")
    if rule.query is not None:
        query = tuple(sorted(_parameters(environ.get("QUERY_STRING", "")), key=lambda pair: pair[0]))
    place = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME')}:{environ.get('SERVER_PORT')}"
    path = (environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
    return f"http:{digest(canonical((environ.get('wsgi.url_scheme'), place.lower(), path, query, identity)))}"


def response_obstacle(status: str, headers: Headers, *, personal: bool) -> str | None:
    """Why an answer must not be kept, or None. ``personal``: the key holds whom it is for."""
    control = directives(header(headers, "cache-control"))
    vary = variant_names(headers)
    if not status.startswith("200"):
        return "status"
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
    """The request fields an answer depends on, or None for ``Vary: *``."""
    names = {name.strip().lower() for name in header(headers, "vary").split(",")} - {""}
    return None if "*" in names else tuple(sorted(names))


def variant_of(environ: WSGIEnvironment, names: Sequence[str]) -> str:
    """A digest of the named request fields, names and values framed so that nothing can shift between them."""
    values = {name: environ.get(_environ_name(name)) for name in names}
    return digest(canonical((values,)))


def _environ_name(field: str) -> str:
    name = field.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def lifetime(headers: Headers, *, ttl: float, now: float) -> float:
    """Seconds an answer is fresh: what it says itself, never longer than ``ttl``, less the age it came with."""
    control = directives(header(headers, "cache-control"))
    said = [_whole_seconds(control[name]) for name in ("s-maxage", "max-age") if name in control][:1]
    if not said and header(headers, "expires"):
        said = [_expires(headers, now)]
    age = _whole_seconds(header(headers, "age")) if header(headers, "age") else 0.0
    return max(0.0, min([ttl, *said]) - age)


def _whole_seconds(text: str) -> float:
    """Delta-seconds; what is none counts as stale (RFC 9111, 4.2.1)."""
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


def kept_headers(headers: Headers) -> list[tuple[str, str]]:
    """The fields that belong to the content."""
    named = {name.strip().lower() for name in header(headers, "connection").split(",")}
    return [(name, value) for name, value in headers if name.lower() not in _NOT_KEPT | named]


def is_not_modified(environ: Mapping[str, Any], headers: Headers) -> bool:
    """Whether the client's copy is the same (RFC 9110, 13.2.2)."""
    if "HTTP_IF_NONE_MATCH" in environ:
        wanted = environ["HTTP_IF_NONE_MATCH"].strip()
        own = _ENTITY_TAG.fullmatch(header(headers, "etag"))
        return wanted == "*" or (own is not None and own[1] in _ENTITY_TAG.findall(wanted))
    since = _moment(environ.get("HTTP_IF_MODIFIED_SINCE", ""))
    modified = _moment(header(headers, "last-modified"))
    return since is not None and modified is not None and modified <= since
