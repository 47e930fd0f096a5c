"""Rules of sessions: when they end, and how many a user has; pure functions of record, time and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from mks_hardening._core.web.session_data import json_text

if TYPE_CHECKING:
    from mks_hardening.protocols import SessionRecord

__all__ = [
    "ABSOLUTE",
    "CLOCKS_AGREE",
    "COOKIE_GRACE",
    "ENDED_BY_NEW_ID",
    "IDLE",
    "REPLACED",
    "REVOKED",
    "ROTATED",
    "ROTATION_GRACE",
    "SessionLimits",
    "check_session",
    "decode_data",
    "encode_data",
    "surplus_sessions",
]

IDLE: Final = "idle"
ABSOLUTE: Final = "absolute"
REVOKED: Final = "revoked"
ROTATED: Final = "rotated"
REPLACED: Final = "replaced"
# Ended by a request that gave the browser a new id: its other requests may still carry the old one.
ENDED_BY_NEW_ID: Final = frozenset({ROTATED, REPLACED})
_REASONS: Final = frozenset({IDLE, ABSOLUTE, REVOKED})

# Seconds by which the clocks of two hosts may differ without consequences.
CLOCKS_AGREE: Final = 1.0
# Seconds after a rotation during which requests already in progress with the old id may read.
ROTATION_GRACE: Final = 10.0
# Seconds after a rotation or sign-in during which a response to the old id does not change the browser's cookie.
COOKIE_GRACE: Final = 60.0

_MAX_DATA: Final = 4096


class SessionLimits(NamedTuple):
    """Longest idle time and longest lifetime of a session, in seconds."""

    idle: float
    absolute: float

    def deadline(self, created_at: float, seen_at: float) -> float:
        """Return the wall time of the nearer limit."""
        return min(seen_at + self.idle, created_at + self.absolute)


def check_session(
    record: SessionRecord, seen_at: float, now: float, limits: SessionLimits
) -> tuple[str, float]:
    """Decide whether a session that the store knows is alive.

    Args:
        record: record from the store.
        seen_at: wall time of the last activity, at least ``record.seen_at``.
        now: wall time.
        limits: idle and absolute limit (ASVS 7.3.1, 7.3.2).

    Returns:
        Why the session has ended, or an empty text while it is alive, and the wall time of the nearer limit. The
        limit that is reached first determines the reason.
    """
    reason, deadline = IDLE, seen_at + limits.idle
    absolute = record.created_at + limits.absolute
    if absolute <= deadline:
        reason, deadline = ABSOLUTE, absolute
    if record.ended:
        # The reason becomes a header field, so a store that was tampered with must not determine its text.
        return (record.ended if record.ended in _REASONS else REVOKED), deadline
    return (reason if now >= deadline else ""), deadline


def surplus_sessions(others: Sequence[SessionRecord], max_sessions: int) -> list[str]:
    """Return the keys of the sessions that must end when their user starts another one.

    ``stores/lua/create.lua`` applies the same rule in Redis; the contract suite of session stores checks both.

    Args:
        others: the living sessions of the user without the new one, oldest first.
        max_sessions: maximum number of living sessions of a user, the new one included.
    """
    return [record.key for record in others[: max(0, len(others) + 1 - max_sessions)]]


def encode_data(data: Mapping[str, Any]) -> str:
    """Encode the data of a session as JSON.

    Raises:
        TypeError: not a mapping with text keys, or a value that JSON cannot represent.
        ValueError: NaN or infinity, or more than 4096 bytes.
    """
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise TypeError("session data must be a mapping with str keys")
    text = json_text(dict(data))
    if len(text.encode()) > _MAX_DATA:
        raise ValueError(
            f"session data must not exceed {_MAX_DATA} bytes of JSON; store large data elsewhere"
        )
    return text


def decode_data(text: str) -> dict[str, Any]:
    """Decode the data of a session; empty if the text is not valid."""
    try:
        data: Any = json.loads(text)
    except ValueError:
        return {}
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}
