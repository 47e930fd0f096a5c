"""Is this session alive? Pure functions over a record, a time and the limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from mks_hardening.protocols import SessionRecord

__all__ = [
    "ABSOLUTE",
    "CLOCKS_AGREE",
    "IDLE",
    "LATE_ARRIVAL",
    "REPLACED",
    "REVOKED",
    "ROTATED",
    "ROTATION_GRACE",
    "SUCCEEDED",
    "SessionLimits",
    "decode_data",
    "encode_data",
    "judge",
]

IDLE: Final = "idle"
ABSOLUTE: Final = "absolute"
REVOKED: Final = "revoked"
ROTATED: Final = "rotated"
REPLACED: Final = "replaced"
# Ended by a request that gave the browser a new id: another of its requests may still carry the old one.
SUCCEEDED: Final = frozenset({ROTATED, REPLACED})
_REASONS: Final = frozenset({IDLE, ABSOLUTE, REVOKED})

# Seconds by which the clocks of two hosts may differ without anybody minding.
CLOCKS_AGREE: Final = 1.0
# Seconds for which requests that were under way with the old id may read after a rotation.
ROTATION_GRACE: Final = 10.0
# Seconds after a rotation or sign-in for which an answer to the old id leaves the browser's cookie alone.
LATE_ARRIVAL: Final = 60.0

_MAX_DATA: Final = 4096


class SessionLimits(NamedTuple):
    """Seconds a session may be idle, and seconds it may live at all."""

    idle: float
    absolute: float

    def deadline(self, created_at: float, seen_at: float) -> float:
        """Wall time of the nearer limit."""
        return min(seen_at + self.idle, created_at + self.absolute)


def judge(record: SessionRecord, seen_at: float, now: float, limits: SessionLimits) -> tuple[str, float]:
    """Judge a session that the store knows.

    Args:
        record: what the store knows.
        seen_at: wall time of the last activity, at least ``record.seen_at``.
        now: wall time.
        limits: idle and absolute limit (ASVS 7.3.1, 7.3.2).

    Returns:
        Why the session is over, or an empty text while it lives, and the wall time of the nearer limit. The
        limit that is reached first gives the reason.
    """
    reason, deadline = IDLE, seen_at + limits.idle
    absolute = record.created_at + limits.absolute
    if absolute <= deadline:
        reason, deadline = ABSOLUTE, absolute
    if record.ended:
        # The reason becomes a header field, so a store that was tampered with must not choose its text.
        return (record.ended if record.ended in _REASONS else REVOKED), deadline
    return (reason if now >= deadline else ""), deadline


def encode_data(data: Mapping[str, Any]) -> str:
    """The data of a session as JSON text.

    Raises:
        TypeError: not a mapping with text keys, or a value JSON has no form for.
        ValueError: NaN or infinity, or more than 4096 bytes.
    """
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise TypeError("session data must be a mapping with str keys")
    text = json.dumps(dict(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if len(text.encode()) > _MAX_DATA:
        raise ValueError(
            f"session data must not exceed {_MAX_DATA} bytes of JSON; keep large things elsewhere"
        )
    return text


def decode_data(text: str) -> dict[str, Any]:
    """The data of a session; empty when the text is not what ``encode_data`` writes."""
    try:
        data: Any = json.loads(text)
    except ValueError:
        return {}
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}
