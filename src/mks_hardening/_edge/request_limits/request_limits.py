"""Limits of requests and the check of a request's head, on plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from mks_hardening._core.checks import boolean, instance, instances, strings, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.web.paths import PathRules, is_plain_path, paths_of_rule, values_of_path
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening.exceptions import ConfigurationError, RequestLimitError

__all__ = [
    "LONGEST_DISCARD",
    "MOST_DISCARDED",
    "BodyLimit",
    "RequestHeadSize",
    "RequestLimitRule",
    "RequestLimits",
    "RequestLimitsRules",
    "TooLarge",
    "broken_limit",
]

_MEDIA_TYPE: Final = re.compile(r"[!#$&^_.+0-9A-Za-z-]{1,127}/(?:\*|[!#$&^_.+0-9A-Za-z-]{1,127})").fullmatch
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}").fullmatch
_ENCODED: Final = re.compile(r"%(?:[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})").search
_CONTROL: Final = re.compile("[\x80-\x9f\ufffd]").search  # of Unicode, and what servers put for broken UTF-8
_AMBIGUOUS_RAW: Final = re.compile(r"%(?:2f|5c|(?![0-9a-f]{2}))", re.IGNORECASE).search
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
MOST_DISCARDED: Final = 64 * 1024 * 1024
LONGEST_DISCARD: Final = 5.0
"""Bytes of a refused body that are read and discarded, and seconds that it may take.

A connection that is closed with unread bytes is reset, and a client that is still sending loses the response
(RFC 9112, 9.6).
"""
_LONGEST_TYPE: Final = 1000
_LONGEST_SEEN: Final = 200
_SETTINGS: Final = {"body": "MKS_MAX_BODY, MKS_MAX_BODY_PATHS", "body_seconds": "MKS_BODY_TIMEOUT"}
_STATUS: Final = {"body": 413, "body_seconds": 408, "content_types": 415}


class TooLarge(NamedTuple):
    """The limit that a request breaks: its response, and the value that broke it."""

    response: RefusalResponse
    seen: str


class RequestHeadSize(NamedTuple):
    """The parts of a request's head that have limits.

    Attributes:
        method: method of the request.
        path: path with its mount, decoded, as the bytes of UTF-8 in Latin-1 (PEP 3333).
        raw_path: path as sent, or an empty text if the server does not provide it.
        target_bytes: length of the path and query as sent.
        fields: lengths of the header fields, name and value together.
        content_length: field ``Content-Length``; ``None`` if it is missing.
        chunked: whether ``Transfer-Encoding`` is present.
        content_type: field ``Content-Type``; ``None`` if it is missing.
        http_version: version of HTTP, such as ``1.1`` or ``2``.
    """

    method: str
    path: str
    raw_path: str
    target_bytes: int
    fields: list[int]
    content_length: str | None
    chunked: bool
    content_type: str | None
    http_version: str

    @property
    def has_body(self) -> bool | None:
        """Whether a body follows; ``None`` if only its first byte tells.

        A body in HTTP/2 and HTTP/3 needs neither ``Content-Length`` nor ``Transfer-Encoding`` (RFC 9113, 8.1.1).
        Servers that decode chunks may remove ``Transfer-Encoding``, so only methods without a body are believed.
        """
        if self.chunked or self.content_length is not None:
            return self.chunked or self.declared != 0
        return False if self.http_version.startswith("1") and self.method in _WITHOUT_BODY else None

    @property
    def declared(self) -> int | None:
        """The number in ``Content-Length``, of which 19 digits exceed every limit; ``None`` if it is none."""
        length = self.content_length or ""
        return int(length.lstrip("0")[:19] or "0") if length.isascii() and length.isdecimal() else None

    @property
    def unread(self) -> int:
        """Number of bytes to discard if the request is refused before its body is read."""
        if self.method == "HEAD" or (self.chunked and self.content_length is not None):
            return 0
        return min(MOST_DISCARDED if self.chunked else self.declared or 0, MOST_DISCARDED)


class RequestLimits:
    """Limits of the requests to some paths.

    Args:
        body: maximum size of a body in bytes, declared or counted while it is read.
        header_count: maximum number of header fields.
        header_bytes: maximum size of all header fields together, in bytes.
        field_bytes: maximum size of one header field, in bytes.
        target_bytes: maximum size of path and query, in bytes.
        content_types: allowed media types of bodies, such as ``application/json`` or ``image/*``; ``None`` for all.
        body_seconds: seconds within which a body must arrive. Under WSGI the time is checked between two reads; the
            server must end a read that waits (``timeout`` of nginx's ``client_body_timeout``).
        methods: allowed methods (``GET`` includes ``HEAD``), as a list for the whole application; 405 for others.
            ``None`` leaves that to the framework. Preflights of CORS are answered by ``CORSMiddleware``, outside.
        plain_paths: whether paths that proxies and applications may interpret differently get 400: with empty or
            dot segments (also with parameters, as in ``/..;/``), backslashes or control characters, also encoded
            ones, bytes that are not UTF-8, an encoded percent sign before two hexadecimal digits, no slash at the
            beginning, or (as far as the server provides the path as sent) encoded slashes and invalid escapes.

    Raises:
        ConfigurationError: a number is out of range, or a media type or method is malformed.

    Source: RFC 9110 (15.5.6, 15.5.9, 15.5.14 to 15.5.16), RFC 6585 (5); ASVS 5.0 V4.1.4, V5.2.1; CWE-770, CWE-174.
    """

    __slots__ = ("_refusals", "body", "body_seconds", "content_types", "field_bytes",
                 "header_bytes", "header_count", "methods", "plain_paths", "target_bytes")  # fmt: skip

    def __init__(
        self,
        *,
        body: int = 1024 * 1024,
        header_count: int = 100,
        header_bytes: int = 32768,
        field_bytes: int = 8190,
        target_bytes: int = 8190,
        content_types: Iterable[str] | None = None,
        body_seconds: float | timedelta = 30,
        methods: Iterable[str] | None = None,
        plain_paths: bool = False,
    ) -> None:
        self.body: int = whole_number(body, parameter="body", minimum=0)
        self.header_count: int = whole_number(header_count, parameter="header_count", minimum=1)
        self.header_bytes: int = whole_number(header_bytes, parameter="header_bytes", minimum=1)
        self.field_bytes: int = whole_number(field_bytes, parameter="field_bytes", minimum=1)
        self.target_bytes: int = whole_number(target_bytes, parameter="target_bytes", minimum=1)
        self.content_types: tuple[str, ...] | None = _media_types(content_types)
        self.body_seconds: float = seconds(body_seconds, parameter="body_seconds", allow_zero=False)
        self.methods: tuple[str, ...] | None = _allowed_methods(methods)
        self.plain_paths: bool = boolean(plain_paths, parameter="plain_paths")
        self._refusals = {
            rule: RefusalResponse(
                rule, status, detail, setting=_SETTINGS.get(rule, "request_limits"), limit=limit
            )
            for rule, status, limit, detail in (
                ("target_bytes", 414, target_bytes, f"The URL is longer than {target_bytes} bytes."),
                ("header_count", 431, header_count, f"There are more than {header_count} header fields."),
                (
                    "header_bytes",
                    431,
                    header_bytes,
                    f"The header fields are longer than {header_bytes} bytes.",
                ),
                ("field_bytes", 431, field_bytes, f"A header field is longer than {field_bytes} bytes."),
                ("body", 413, body, f"The body is longer than {body} bytes."),
                (
                    "body_seconds",
                    408,
                    self.body_seconds,
                    f"The body took over {self.body_seconds:g} seconds.",
                ),
            )
        }
        allowed = ", ".join(self.content_types or ())
        self._refusals["content_types"] = RefusalResponse(
            "content_types",
            415,
            f"Send one of these types: {allowed}.",
            [("Accept", allowed)],
            setting="request_limits",
        )

        listed = ", ".join(self.methods or ())
        self._refusals["methods"] = RefusalResponse(
            "methods",
            405,
            f"Use one of these methods: {listed}.",
            [("Allow", listed)],
            setting="request_limits",
        )

    def check(self, head: RequestHeadSize) -> TooLarge | None:
        """Return the first limit that the head breaks, if any."""
        if self.methods is not None and head.method not in self.methods:
            return TooLarge(self._refusals["methods"], head.method[:40])
        if self.plain_paths and not _is_unambiguous(head):
            return TooLarge(_BAD_PATH, (head.raw_path or head.path)[:_LONGEST_SEEN])
        if head.target_bytes > self.target_bytes:
            return TooLarge(self._refusals["target_bytes"], f"{head.target_bytes} bytes")
        if len(head.fields) > self.header_count:
            return TooLarge(self._refusals["header_count"], f"{len(head.fields)} fields")
        if sum(head.fields) > self.header_bytes:
            return TooLarge(self._refusals["header_bytes"], f"{sum(head.fields)} bytes")
        if max(head.fields, default=0) > self.field_bytes:
            return TooLarge(self._refusals["field_bytes"], f"{max(head.fields)} bytes")
        return self._check_body(head)

    def _check_body(self, head: RequestHeadSize) -> TooLarge | None:
        if head.content_length is not None:
            # Two different lengths, or one beside chunks, are how requests are smuggled (RFC 9112, 6.3).
            if head.chunked or head.declared is None:
                return TooLarge(_BAD_LENGTH, "both" if head.chunked else head.content_length[:40])
            if head.declared > self.body:
                return TooLarge(self._refusals["body"], f"{head.content_length[:40]} bytes declared")
        if head.has_body and not self.allows(head.content_type or ""):
            return TooLarge(self._refusals["content_types"], (head.content_type or "no type")[:100])
        return None

    def allows(self, content_type: str) -> bool:
        """Return whether bodies of this media type are allowed."""
        if self.content_types is None:
            return True
        kind = content_type[:_LONGEST_TYPE].partition(";")[0].strip().lower()
        return any(
            kind == allowed or (allowed.endswith("/*") and kind.startswith(allowed[:-1]))
            for allowed in self.content_types
        )

    def exceeded(self, rule: str) -> TooLarge:
        """Return the refusal for a limit that was exceeded while the body was read."""
        return TooLarge(self._refusals[rule], "while reading")


class RequestLimitRule:
    """Limits for some paths; the first rule of ``RequestLimitsMiddleware`` whose paths match decides.

    Args:
        path: one path or several; a trailing slash includes everything below. In another spelling of the path,
            such as ``/x/../uploads``, the rule can only add limits.
        limits: the limits.

    Raises:
        ConfigurationError: there is no path, or one does not begin with a slash; or ``limits`` is not a
            ``RequestLimits``.
    """

    __slots__ = ("limits", "paths")

    def __init__(self, path: str | Iterable[str], limits: RequestLimits) -> None:
        self.paths: PathRules = paths_of_rule(path)
        self.limits: RequestLimits = instance(limits, RequestLimits, parameter="limits")

    def covers(self, path: str) -> bool:
        """Return whether the limits apply to the path, or to another spelling of it."""
        return self.paths.covers(path)


class RequestLimitsRules:
    """The limits of ``RequestLimitsMiddleware`` by path."""

    __slots__ = ("_everywhere", "_rules")

    def __init__(self, limits: RequestLimits | None, rules: Iterable[RequestLimitRule]) -> None:
        self._everywhere = (
            RequestLimits() if limits is None else instance(limits, RequestLimits, parameter="limits")
        )
        self._rules = [
            (rule.paths, rule.limits) for rule in instances(rules, RequestLimitRule, parameter="rules")
        ]

    def limits(self, path: str) -> Sequence[RequestLimits]:
        """Return the limits of a path, all of which apply."""
        return values_of_path(path, self._rules, self._everywhere)


def broken_limit(limits: Iterable[RequestLimits], head: RequestHeadSize) -> TooLarge | None:
    """Return the first of several limits that a head breaks, if any."""
    return next(filter(None, (each.check(head) for each in limits)), None)


class BodyLimit:
    """Counts the bytes and the time of one body while it is read.

    Args:
        limits: the limits, of which the strictest count.
        head: head of the request, which they accept.
        now: time of the request.

    Attributes:
        broken: the limit that was exceeded, or ``None``.
    """

    __slots__ = ("_deadline", "_left", "_size", "_time", "_type", "broken")

    def __init__(self, limits: Sequence[RequestLimits], head: RequestHeadSize, now: float) -> None:
        self._size = min(limits, key=lambda each: each.body)
        self._time = min(limits, key=lambda each: each.body_seconds)
        refused = (each for each in limits if not each.allows(head.content_type or ""))
        self._type = None if head.has_body else next(refused, None)
        self._left = self._size.body
        self._deadline = now + self._time.body_seconds
        self.broken: str | None = None

    def left(self, now: float) -> float:
        """Return the seconds left for the rest of the body."""
        return max(0.0, self._deadline - now)

    def count(self, size: int, now: float) -> bool:
        """Count bytes that have arrived; return whether the body is still within its limits."""
        self._left -= size
        if size and self._type is not None:
            self.broken = "content_types"
        elif self._left < 0:
            self.broken = "body"
        elif now > self._deadline:
            self.broken = "body_seconds"
        return self.broken is None

    def exceeded(self) -> TooLarge:
        """Return the refusal for the limit that was exceeded."""
        responsible = {"body_seconds": self._time, "content_types": self._type}.get(self.broken or "")
        return (responsible or self._size).exceeded(self.broken or "body")

    def error(self) -> RequestLimitError:
        """Return the exception for the application that reads beyond the limit."""
        rule = self.broken or "body"
        return RequestLimitError(rule, _STATUS[rule])


_BAD_LENGTH: Final = RefusalResponse(
    "content_length", 400, "Content-Length must be one number, without Transfer-Encoding."
)


_BAD_PATH: Final = RefusalResponse("path", 400, "The path of the URL is ambiguous.", setting="request_limits")


def _is_unambiguous(head: RequestHeadSize) -> bool:
    """Return whether proxies and applications interpret the path in the same way."""
    path = head.path
    if not path.startswith("/"):
        return not path or (path == "*" and head.method == "OPTIONS")
    if not is_plain_path(path):
        return False
    # A percent sign that is left after decoding would be decoded again by a careless application.
    if "%" in path and _ENCODED(path) is not None:
        return False
    try:
        text = path if path.isascii() else path.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return False
    return _CONTROL(text) is None and _AMBIGUOUS_RAW(head.raw_path) is None


def _allowed_methods(methods: Iterable[str] | None) -> tuple[str, ...] | None:
    if methods is None:
        return None
    listed = strings(methods, parameter="methods", of="methods")
    for name in listed:
        if not _METHOD(name):
            raise ConfigurationError(
                f"methods: {name!r} is not a method in capitals such as GET", parameter="methods"
            )
    if not listed:
        raise ConfigurationError("methods must contain at least one method", parameter="methods")
    return tuple(dict.fromkeys((*listed, "HEAD") if "GET" in listed else listed))


def _media_types(types: Iterable[str] | None) -> tuple[str, ...] | None:
    if types is None:
        return None
    listed = tuple(name.lower() for name in strings(types, parameter="content_types", of="media types"))
    for name in listed:
        if not _MEDIA_TYPE(name):
            raise ConfigurationError(
                f"content_types: {name!r} is not a media type such as application/json or image/*",
                parameter="content_types",
            )
    return listed
