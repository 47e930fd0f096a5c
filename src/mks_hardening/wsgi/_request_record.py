"""What one request record says: pure functions over plain values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["full_path", "level_of", "outcome_of", "record_fields", "status_code"]

# RFC 9110, 6.4.1 and 15.3.5, 15.4.5: these answers have no body whatever the header fields say.
_BODYLESS: Final = frozenset({204, 304})
_LONGEST_PATH: Final = 2048


def status_code(line: str) -> int:
    """The number in a status line; 0 when there is none."""
    digits = line[:3]
    return int(digits) if len(digits) == 3 and digits.isascii() and digits.isdecimal() else 0


def full_path(environ: Mapping[str, Any]) -> str:
    """SCRIPT_NAME and PATH_INFO as readable text in one line.

    WSGI hands the bytes over as Latin-1 (PEP 3333); what is not UTF-8 or not printable is shown escaped.
    """
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if len(path) > _LONGEST_PATH:
        path = path[:_LONGEST_PATH] + "..."
    if path.isascii() and path.isprintable():
        return path
    text = path.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def has_body(method: str, status: int) -> bool:
    """Whether the server sends a body with such an answer."""
    return method != "HEAD" and status not in _BODYLESS and not 100 <= status < 200


def outcome_of(*, failed: bool, complete: bool, expects_body: bool, sent: int, declared: int | None) -> str:
    """``error``: an exception left the application; ``aborted``: the body was not sent whole; else ``ok``."""
    if failed:
        return "error"
    if complete or not expects_body or (declared is not None and sent >= declared):
        return "ok"
    return "aborted"


def level_of(status: int, outcome: str) -> int:
    """ERROR for what the service did wrong, also for no status; what a client did wrong need wake nobody."""
    return logging.INFO if 0 < status < 500 and outcome != "error" else logging.ERROR


def record_fields(
    environ: Mapping[str, Any],
    *,
    status: int,
    sent: int,
    duration: float,
    first_byte_after: float | None,
    outcome: str,
    exc_type: str | None,
    client_ip: str | None,
    request_id: str,
    trace_id: str,
    redact_query: Callable[[str], str],
) -> dict[str, Any]:
    """The attributes of the one record of a request; durations are taken in seconds and told in milliseconds."""
    fields: dict[str, Any] = {
        "method": environ.get("REQUEST_METHOD", ""),
        "path": full_path(environ),
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
    query = environ.get("QUERY_STRING")
    if query:
        fields["query"] = redact_query(query)
    route = environ.get("mks_hardening.route")
    if route:
        fields["route"] = route
    return fields
