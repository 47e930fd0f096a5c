"""Ids in request headers: ``X-Request-ID`` and the trace id of a W3C ``traceparent``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["accepted_request_id", "trace_id_of"]

# The characters that proxies and UUID tools use; no blanks or quotes, which could break a log line.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:@/+=-]{1,200}").fullmatch
# W3C Trace Context 1, 3.2: version ff is invalid; version 00 ends after the flags, later ones may append "-...".
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch
# Version 00 has 55 characters; later versions may append to it (W3C Trace Context, 3.2.4).
_LONGEST_TRACEPARENT: Final = 512


def accepted_request_id(value: str | None) -> str | None:
    """Return the id if it is well formed: 1 to 200 characters of ``A-Za-z0-9._~:@/+=-``; else ``None``."""
    return value if value and _REQUEST_ID(value) else None


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace id of a valid ``traceparent`` field, else ``None``."""
    if not traceparent or len(traceparent) > _LONGEST_TRACEPARENT:
        return None
    match = _TRACEPARENT(traceparent)
    if match is None or (match[1] == "00" and match[3] is not None):
        return None
    return match[2]
