"""What one request record says: pure functions over plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mks_hardening.wsgi.refusals import Refusal

__all__ = ["readable_path", "record_fields"]

# Servers take 8 kB and more; a line of the log should not.
_LONGEST_PATH: Final = 2048
# Browsers send up to some 250 characters.
_LONGEST_USER_AGENT: Final = 256
_LONGEST_USER: Final = 256
_LONGEST_METHOD: Final = 32


def readable_path(path: str) -> str:
    """A path as readable text in one line.

    WSGI hands the bytes over as Latin-1 (PEP 3333); what is not UTF-8 or not printable is shown escaped.
    """
    return _readable(path, _LONGEST_PATH)


def _readable(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isascii() and text.isprintable():
        return text
    return _printable(text.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace"))


def _printable(text: str) -> str:
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
    """The attributes of the one record of a request; durations are taken in seconds and told in milliseconds.

    Returns:
        ``method``: as sent, cut at a bound.
        ``path``: without the query, cut at a bound.
        ``query``: with secrets hidden; only where there is one.
        ``route``: the pattern that the path matched, where the application says so.
        ``status``: of the answer.
        ``bytes``: of the body, as far as the server took them.
        ``duration_ms``: until the last byte.
        ``ttfb_ms``: until the first byte; null without one.
        ``outcome``: ``ok``, ``error`` (an exception) or ``aborted`` (not sent whole).
        ``exc_type``: the class of the error that ended the request, or null.
        ``client_ip``: of the client, behind trusted proxies too.
        ``request_id``: as answered in ``X-Request-ID``.
        ``trace_id``: of the W3C trace context, or one of its own.
        ``user_agent``: as sent, cut and printable; only where there is one.
        ``user_id``: who was signed in when the request ended, or was signed out by it, in the session or by the
            server (``REMOTE_USER``); only where somebody was.
        ``refused_by``: the wrapper that answered in place of the application; only on refusals. ``application``
            where a view met an outage, which ``refused_value`` then names.
        ``refused_rule``: its rule.
        ``refused_value``: what it saw, cut and without secrets.
    """
    fields: dict[str, Any] = {
        "method": readable_path(method[:_LONGEST_METHOD]),
        "path": readable_path(path),
        "status": status,
        "bytes": sent,
        "duration_ms": round(duration * 1000, 3),
        "ttfb_ms": None if first_byte_after is None else round(first_byte_after * 1000, 3),
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
        fields["user_agent"] = _readable(user_agent, _LONGEST_USER_AGENT)
    if user_id:
        fields["user_id"] = _printable(user_id[:_LONGEST_USER])
    if refusal is not None:
        fields["refused_by"] = refusal.wrapper
        fields["refused_rule"] = refusal.rule
        fields["refused_value"] = refusal.seen
    return fields
