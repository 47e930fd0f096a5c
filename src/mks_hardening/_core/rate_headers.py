"""Rate limit header fields from a decision: the X- names, the IETF draft fields, and Retry-After on refusals."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision

__all__ = ["HeaderStyle", "rate_limit_headers"]

HeaderStyle = Literal["x", "ietf", "both"]


def rate_limit_headers(decision: LimitDecision, *, style: HeaderStyle = "both") -> list[tuple[str, str]]:
    """Header fields that tell a client where it stands.

    The X- fields speak of the tightest limit; ``RateLimit-Policy`` and ``RateLimit`` list all of them
    (draft-ietf-httpapi-ratelimit-headers). Seconds are rounded up, so that a client that waits is let in;
    ``Retry-After`` (RFC 9110, 10.2.3) comes on refusals only and is at least 1.
    """
    headers: list[tuple[str, str]] = []
    rows = list(zip(decision.limits, decision.remaining, decision.reset_after, strict=True))
    if rows and style in ("x", "both"):
        limit, remaining, reset = min(rows, key=lambda row: (row[1], -row[2]))
        headers += [
            ("X-RateLimit-Limit", str(limit.quota)),
            ("X-RateLimit-Remaining", str(max(0, remaining))),
            ("X-RateLimit-Reset", str(ceil(max(0.0, reset)))),
        ]
    if rows and style in ("ietf", "both"):
        policy = ", ".join(f'"{limit.name}";q={limit.quota};w={ceil(limit.window)}' for limit, _, _ in rows)
        state = ", ".join(
            f'"{limit.name}";r={max(0, left)};t={ceil(max(0.0, reset))}' for limit, left, reset in rows
        )
        headers += [("RateLimit-Policy", policy), ("RateLimit", state)]
    if not decision.allowed:
        headers.append(("Retry-After", str(max(1, ceil(decision.retry_after or 0.0)))))
    return headers
