"""Everything worth counting, as small frozen events, and who is told of them.

An event is built only when somebody listens; without observers it costs one truth test (at most 100 ns).
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
    """A wrapper (``https``, ``csrf``, ``rate_limit``, ``health``) refused a request; ``reason`` is one word."""

    wrapper: str
    reason: str
    client_ip: str


class RateLimitDecided(NamedTuple):
    """A limiter decided.

    ``source`` is ``backend``; ``remembered`` where a refusal of the last moment still held; ``exempt``; or while
    the storage is away the policy: ``local``, ``open`` or ``closed``.
    """

    group: str
    allowed: bool
    source: str
    dry_run: bool = False


class RateLimitNear(NamedTuple):
    """A hit brought some key to 80 % of a limit or beyond: the limit is tight, or somebody is about to reach it.

    ``key`` is whose hits were counted, as it was handed to the limiter. Keys of ``SignIn`` may end in what was
    typed as a name, and people type passwords there: show the part that you know, and log none of it. The ``repr``
    leaves it out.
    """

    group: str
    limit: str
    used: int
    quota: int
    key: str = ""

    def __repr__(self) -> str:
        return f"RateLimitNear({self.group!r}, {self.limit!r}, used={self.used}, quota={self.quota})"


class TwoFactorEvent(NamedTuple):
    """Something happened to a second factor; worth an audit record, most also a message to its owner.

    The logger ``mks_hardening.security`` records each, too.

    ``change`` is ``enrolment_begun``, ``enrolment_cancelled``, ``enrolment_refused``, ``enrolled``, ``verified``,
    ``refused``, ``locked``, ``unlocked``, ``recovery_codes_low``, ``recovery_codes_regenerated``, ``disabled``,
    ``reset``, ``device_remembered``, ``device_revoked``, ``devices_forgotten``, ``passkey_registered``,
    ``passkey_revoked``, ``passkey_cloned`` (a counter ran backwards), ``reencryption_failed`` or ``notice_failed``;
    ``actor`` is who unlocked or reset somebody else's. The ``reason`` of ``enrolled`` is ``adopted`` where the
    secret came from another library.
    """

    change: str
    user_id: str
    method: str = ""
    reason: str = ""
    actor: str = ""


class SignInEvent(NamedTuple):
    """A step of a sign-in or a change of credentials; worth an audit record (ASVS 5.0, 16.3.1).

    The logger ``mks_hardening.security`` records each, too.

    ``change`` is ``signed_in``, ``challenged``, ``refused``, ``limited``, ``factor_refused``,
    ``challenge_refused``, ``confirmed``, ``confirmation_refused``, ``locked``, ``lock_passed``, ``unlocked``,
    ``factor_reset``, ``disabled``, ``password_changed``, ``reset_requested``, ``reset_refused``,
    ``email_change_requested``, ``email_changed``, ``email_change_refused``, ``device_revoked``,
    ``devices_forgotten``, ``rehash_failed``, ``device_failed`` or ``notice_failed``. The ``reason`` of a refusal
    (``unknown``, ``wrong``, ``disabled``, ``locked``, ``changed`` while the sign-in was under way) must reach no
    client. ``user_id`` is empty where nobody is known by the name, which itself is not told: people type passwords
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


class TaskChanged(NamedTuple):
    """A run of a background task ended.

    ``done``, ``retried``, ``dead``, ``cancelled``, ``lost`` (its lease ran out), ``interrupted`` (by the end of its
    worker), ``unknown`` (to this worker, by its name or its arguments; another one gets it) or ``stranded``
    (unknown for longer than a deploy).
    """

    name: str
    outcome: str
    seconds: float


class TaskQueueSeen(NamedTuple):
    """What a look at the queue of tasks found: how many are due and nobody works at, and for how many seconds."""

    due: int
    oldest_due: float
    running: int
    dead: int
    stalled: bool
