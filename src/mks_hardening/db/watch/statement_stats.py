"""Statistics record of one statement."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StatementCaller", "StatementStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCaller:
    """Place that sends a statement.

    Attributes:
        caller: ``file:line`` of the application; ``other`` for places first seen after 10 others.
        route: the field ``route`` of the log context (``mks_hardening.logging.bind``), otherwise the route of the
            request, if its framework has told it (Flask, Django, FastAPI, Litestar, or ``ROUTE_KEY``) and the
            request log is in use; otherwise empty.
        share: share of the statement's calls, from 0 to 1. It is an estimate: the first calls of a statement are
            looked at, then every 64th.
    """

    caller: str
    route: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementStats:
    """Statistics of one statement since the last reset; durations are in milliseconds.

    Percentiles are upper bounds that are at most 5 % too high. ``fingerprint`` is ``other`` for the sum of all
    statements first seen after the table was full; it has no text. ``statement`` is the text without values, cut
    after 600 characters. ``callers`` are the places that send it, the most frequent first.
    """

    fingerprint: str
    calls: int
    errors: int
    rows: int
    total_ms: float
    max_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    statement: str = ""
    callers: tuple[StatementCaller, ...] = ()
