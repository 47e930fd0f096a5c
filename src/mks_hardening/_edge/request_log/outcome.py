"""Outcome of a request and the level of its log record, on plain values."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["has_body", "level_of", "outcome_of", "status_code"]

# RFC 9110, 6.4.1, 15.3.5 and 15.4.5: these responses have no body, whatever their header fields say.
_BODYLESS: Final = frozenset({204, 304})


def status_code(line: str) -> int:
    """Return the number in a status line; 0 if there is none."""
    digits = line[:3]
    return int(digits) if len(digits) == 3 and digits.isascii() and digits.isdecimal() else 0


def has_body(method: str, status: int) -> bool:
    """Return whether the server sends a body with such a response."""
    return method != "HEAD" and status not in _BODYLESS and not 100 <= status < 200


def outcome_of(
    *, failed: bool, complete: bool, broken_off: bool, expects_body: bool, sent: int, declared: int | None
) -> str:
    """Return ``error`` after an exception, ``aborted`` if the body was not sent whole, else ``ok``.

    A server may stop reading the body once it has the declared length (PEP 3333), unless it stops because of an
    error.
    """
    if failed:
        return "error"
    if complete or not expects_body or (declared is not None and sent >= declared and not broken_off):
        return "ok"
    return "aborted"


def level_of(status: int, outcome: str, refused_by: str = "") -> int:
    """Return ERROR for server errors and for a missing status, else INFO: client errors need no alert.

    Neither does a client that leaves before there is a response, nor maintenance, which somebody turned on.
    """
    if (status == 0 and outcome == "aborted") or refused_by == "maintenance":
        return logging.INFO
    return logging.INFO if 0 < status < 500 and outcome != "error" else logging.ERROR
