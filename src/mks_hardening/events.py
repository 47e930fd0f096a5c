"""Events for metrics and audit logs as small immutable tuples, and the registration of observers.

An event is created only if there is an observer; without one, it costs a single truth test (at most 100 ns).
"""

from __future__ import annotations

from typing import NamedTuple

from mks_hardening._core.hooks import add_observer, remove_observer
from mks_hardening._core.lazy_exports import exported
from mks_hardening._core.resilience.backend_events import BackendFailed, BreakerChanged

__all__ = [
    "AlertsCounted",
    "BackendFailed",
    "BreakerChanged",
    "CacheRead",
    "CachedCall",
    "LogsDropped",
    "PoolEvent",
    "RateLimitDecided",
    "RateLimitNear",
    "RequestFinished",
    "RequestRefused",
    "SessionChanged",
    "SignInEvent",
    "SlowQuery",
    "TaskChanged",
    "TaskQueueSeen",
    "TwoFactorEvent",
    "add_observer",
    "remove_observer",
]

exported(__name__, [BackendFailed, BreakerChanged, add_observer, remove_observer])


class CacheRead(NamedTuple):
    """Result of a cache read: ``hit``, ``miss``, ``stale``, ``error`` or ``bypass`` (with the reason)."""

    namespace: str
    outcome: str
    reason: str = ""


class CachedCall(NamedTuple):
    """Result of a call of a cached function, in the words of ``CacheRead``; the name is that of its keys."""

    function: str
    outcome: str
    reason: str = ""


class SessionChanged(NamedTuple):
    """A session was ``started``, ``rotated``, ``ended`` or refused (reason ``idle``, ``absolute``, ``revoked``)."""

    change: str
    reason: str = ""
    user_id: str | None = None


class RequestFinished(NamedTuple):
    """A request was answered or aborted."""

    method: str
    route: str | None
    status: int
    duration_ms: float
    outcome: str


class RequestRefused(NamedTuple):
    """A middleware (``https``, ``csrf``, ``rate_limit``, ``health``) rejected a request; ``reason`` is one word."""

    wrapper: str
    reason: str
    client_ip: str


class RateLimitDecided(NamedTuple):
    """Decision of a rate limiter.

    ``source`` is ``backend``; ``remembered`` if a very recent rejection was still valid; ``exempt``; or, while the
    storage is unavailable, the outage policy: ``local``, ``open`` or ``closed``.
    """

    group: str
    allowed: bool
    source: str
    dry_run: bool = False


class RateLimitNear(NamedTuple):
    """A key used 80 % of a limit or more: the limit is tight, or a client is about to reach it.

    ``key`` is the key whose hits are counted, as passed to the limiter. Keys of ``SignIn`` may end in the user name
    that was entered, and users sometimes enter passwords there: display only the part that you know, and do not log
    the key. The ``repr`` omits it.
    """

    group: str
    limit: str
    used: int
    quota: int
    key: str = ""

    def __repr__(self) -> str:
        return f"RateLimitNear({self.group!r}, {self.limit!r}, used={self.used}, quota={self.quota})"


class TwoFactorEvent(NamedTuple):
    """A change to a second factor; for the audit log, and in most cases also a notice to its owner.

    The logger ``mks_hardening.security`` also records every such event.

    ``change`` is ``enrolment_begun``, ``enrolment_cancelled``, ``enrolment_refused``, ``enrolled``, ``verified``,
    ``refused``, ``locked``, ``unlocked``, ``recovery_codes_low``, ``recovery_codes_regenerated``, ``disabled``,
    ``reset``, ``device_remembered``, ``device_revoked``, ``devices_forgotten``, ``passkey_registered``,
    ``passkey_revoked``, ``passkey_cloned`` (a signature counter decreased), ``reencryption_failed`` or
    ``notice_failed``; ``actor`` is the operator who unlocked or reset another user's factor. The ``reason`` of
    ``enrolled`` is ``adopted`` if the secret was imported from another library.
    """

    change: str
    user_id: str
    method: str = ""
    reason: str = ""
    actor: str = ""


class SignInEvent(NamedTuple):
    """A sign-in step or a change of credentials; for the audit log (ASVS 5.0, 16.3.1).

    The logger ``mks_hardening.security`` also records every such event.

    ``change`` is ``signed_in``, ``challenged``, ``refused``, ``limited``, ``factor_refused``,
    ``challenge_refused``, ``confirmed``, ``confirmation_refused``, ``locked``, ``lock_passed``, ``unlocked``,
    ``factor_reset``, ``disabled``, ``password_changed``, ``reset_requested``, ``reset_refused``,
    ``email_change_requested``, ``email_changed``, ``email_change_refused``, ``device_revoked``,
    ``devices_forgotten``, ``rehash_failed``, ``device_failed`` or ``notice_failed``. The ``reason`` of a refusal
    (``unknown``, ``wrong``, ``disabled``, ``locked``, ``changed`` during the sign-in) must not be sent to a client.
    ``user_id`` is empty if no user has the name. The name itself is not included: users sometimes enter passwords
    into its field.
    """

    change: str
    user_id: str = ""
    client: str = ""
    reason: str = ""
    method: str = ""
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
    """A number of alerts changed state (``delivered``, ``suppressed``, ``spooled``, ``dropped``)."""

    channel: str
    state: str
    number: int
    reason: str = ""


class LogsDropped(NamedTuple):
    """Log records were dropped by a bounded queue, or because a file could not be written."""

    handler: str
    number: int
    reason: str


class TaskChanged(NamedTuple):
    """A run of a background task ended.

    ``outcome`` is ``done``, ``retried``, ``dead``, ``cancelled``, ``lost`` (its lease expired), ``interrupted``
    (its worker stopped), ``unknown`` (this worker does not know its name or arguments; another one gets it) or
    ``stranded`` (unknown for longer than a deploy takes).
    """

    name: str
    outcome: str
    seconds: float


class TaskQueueSeen(NamedTuple):
    """State of the task queue: tasks that are due and not running, and the age of the oldest in seconds."""

    due: int
    oldest_due: float
    running: int
    dead: int
    stalled: bool
