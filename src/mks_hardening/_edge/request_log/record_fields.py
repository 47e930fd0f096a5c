"""Fields of a request log record: pure functions of plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.memo import Memo

if TYPE_CHECKING:
    from mks_hardening._edge.refusals import Refusal

__all__ = ["readable_path", "record_fields"]

# Servers accept 8 kB and more, which is too long for a log line.
_LONGEST_PATH: Final = 2048
# Browsers send up to about 250 characters.
_LONGEST_USER_AGENT: Final = 256
_LONGEST_USER: Final = 256
_LONGEST_METHOD: Final = 32
_USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def readable_path(path: str) -> str:
    """Format a path as printable text in one line.

    WSGI passes the bytes as Latin-1 (PEP 3333); bytes that are not UTF-8 or not printable are escaped.
    """
    return _readable(path, _LONGEST_PATH)


def _readable(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isascii() and text.isprintable():
        return text
    return _printable(text.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace"))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def record_fields(
    *,
    method: str,
    path: str,
    query: str | None,
    route: str | None,
    refusal: Refusal | None,
    status: int,
    sent: int,
    duration: float,
    first_byte_after: float | None,
    outcome: str,
    exc_type: str | None,
    client_ip: str | None,
    request_id: str,
    trace_id: str,
    user_agent: str | None,
    user_id: str | None,
    shown_query: Callable[[str], str],
) -> dict[str, Any]:
    """Build the attributes of a request log record; durations are given in seconds and logged in milliseconds.

    Returns:
        ``method``: as sent, cut to a maximum length.
        ``path``: without the query, cut to a maximum length.
        ``query``: with secrets redacted; only if there is one.
        ``route``: the pattern that the path matched, if the application has set it.
        ``status``: status code of the response.
        ``bytes``: size of the body, as far as the server has sent it.
        ``duration_ms``: time until the last byte.
        ``ttfb_ms``: time until the first byte; null without a body.
        ``outcome``: ``ok``, ``error`` (an exception) or ``aborted`` (not sent whole).
        ``exc_type``: class of the exception that ended the request, or null.
        ``client_ip``: address of the client, also behind trusted proxies.
        ``request_id``: as sent in ``X-Request-ID``.
        ``trace_id``: from the W3C trace context, or a new one.
        ``user_agent``: as sent, cut and escaped; only if there is one.
        ``user_id``: user of the session, also if the request signed the user out, or ``REMOTE_USER``; only if there
            is one.
        ``refused_by``: the middleware that responded in place of the application; only for refusals.
            ``application`` if a view ran into an outage, which ``refused_value`` then describes.
        ``refused_rule``: the rule that refused the request.
        ``refused_value``: the value that broke the rule, cut and without secrets.
        ``refused_setting``: the settings that decide, for rules that a setting can change.
    """
    fields: dict[str, Any] = {
        "method": method if method in _USUAL_METHODS else readable_path(method[:_LONGEST_METHOD]),
        "path": _readable(path, _LONGEST_PATH),
        "status": status,
        "bytes": sent,
        # Whole microseconds: rounding to digits takes twice as long.
        "duration_ms": round(duration * 1e6) / 1e3,
        "ttfb_ms": None if first_byte_after is None else round(first_byte_after * 1e6) / 1e3,
        "outcome": outcome,
        "exc_type": exc_type,
        "client_ip": client_ip,
        "request_id": request_id,
        "trace_id": trace_id,
    }
    if query:
        fields["query"] = shown_query(query)
    if route:
        fields["route"] = route
    if user_agent:
        fields["user_agent"] = _USER_AGENTS[user_agent]
    if user_id:
        fields["user_id"] = _printable(user_id[:_LONGEST_USER])
    if refusal is not None:
        fields["refused_by"] = refusal.wrapper
        fields["refused_rule"] = refusal.rule
        fields["refused_value"] = refusal.seen
        if refusal.setting:
            fields["refused_setting"] = refusal.setting
    return fields


# Many requests come from few kinds of clients.
_USER_AGENTS: Final[Memo[str, str]] = Memo(lambda text: _readable(text, _LONGEST_USER_AGENT), entries=1024)
