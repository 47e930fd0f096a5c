"""Everything worth counting, as small frozen events, and who is told of them.

An event is built only when somebody listens; without observers it costs one truth test (at most 100 ns).
"""

from __future__ import annotations

from typing import NamedTuple

from mks_hardening._core.backend_events import BackendFailed, BreakerChanged
from mks_hardening._core.hooks import add_observer, remove_observer

__all__ = [
    "AlertsCounted",
    "BackendFailed",
    "BreakerChanged",
    "CacheRead",
    "LogsDropped",
    "PoolEvent",
    "RateLimitDecided",
    "RequestFinished",
    "RequestRefused",
    "SessionChanged",
    "SlowQuery",
    "TwoFactorEvent",
    "add_observer",
    "remove_observer",
]


class CacheRead(NamedTuple):
    """A cache answered: ``hit``, ``miss``, ``stale``, ``error`` or ``bypass`` (with the reason)."""

    namespace: str
    outcome: str
    reason: str = ""


class SessionChanged(NamedTuple):
    """A session was ``started``, ``rotated``, ``ended`` or refused (reason ``idle``, ``absolute``, ``revoked``)."""

    change: str
    reason: str = ""
    user_id: str | None = None


class RequestFinished(NamedTuple):
    """One request was answered or aborted."""

    method: str
    route: str | None
    status: int
    duration_ms: float
    outcome: str


class RequestRefused(NamedTuple):
    """A wrapper refused a request: ``wrapper`` is ``https``, ``csrf`` or ``rate_limit``; ``reason`` one word."""

    wrapper: str
    reason: str
    client_ip: str


class RateLimitDecided(NamedTuple):
    """A limiter decided; ``source`` is ``backend``, ``local``, ``open`` or ``closed``."""

    group: str
    allowed: bool
    source: str
    dry_run: bool = False


class TwoFactorEvent(NamedTuple):
    """Something happened to a second factor; worth an audit record, most also a message to its owner.

    ``change`` is ``enrolment_begun``, ``enrolment_cancelled``, ``enrolment_refused``, ``enrolled``, ``verified``,
    ``refused``, ``locked``, ``unlocked``, ``recovery_codes_low``, ``recovery_codes_regenerated``, ``disabled``,
    ``reset``, ``device_remembered``, ``devices_forgotten`` or ``reencryption_failed``; ``actor`` is who unlocked or
    reset somebody else's.
    """

    change: str
    user_id: str
    method: str = ""
    reason: str = ""
    actor: str = ""


class SlowQuery(NamedTuple):
    """A statement took longer than the threshold."""

    fingerprint: str
    duration_ms: float
    outcome: str


class PoolEvent(NamedTuple):
    """A connection pool is ``exhausted``, or a connection was ``invalidated`` or ``refused``."""

    change: str
    size: int
    checked_out: int


class AlertsCounted(NamedTuple):
    """Alerts moved into a final or intermediate state (``delivered``, ``suppressed``, ``spooled``, ``dropped``)."""

    channel: str
    state: str
    number: int
    reason: str = ""


class LogsDropped(NamedTuple):
    """Log records were dropped by a bounded queue or a file that cannot be written."""

    handler: str
    number: int
    reason: str
