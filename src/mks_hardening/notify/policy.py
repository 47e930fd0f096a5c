"""What an alert handler decides by: limits that the user may set, pauses between tries, and the sums it keeps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._core.redis_client import RedisClient
    from mks_hardening.protocols import RedisLike

__all__ = [
    "BURST",
    "RETRY_AFTER_CAP",
    "AlertPolicy",
    "AlertStats",
    "pause_before_retry",
    "retry_after_seconds",
]

# Slack tolerates short bursts before it insists on one message a second.
BURST: Final = 3
# A destination may ask for a pause, but not for silence.
RETRY_AFTER_CAP: Final = 300.0


class AlertStats(NamedTuple):
    """What became of the records a handler took: ``logged`` is the sum of the five that follow.

    Attributes:
        logged: records taken from log calls.
        delivered: records the destination accepted as an alert of their own, alone or in a summary.
        suppressed: repetitions, told as a number in a digest.
        spooled: records written to the spool.
        dropped: records lost, because the queue or the spool was full or delivery failed without a spool.
        pending: records still on their way.
        deliveries: messages the destination accepted, with digests and replays.
        replayed: alerts delivered from the spool; whoever spooled them has counted them.
        faults: errors of the notifier itself.
    """

    logged: int = 0
    delivered: int = 0
    suppressed: int = 0
    spooled: int = 0
    dropped: int = 0
    pending: int = 0
    deliveries: int = 0
    replayed: int = 0
    faults: int = 0


class _Fields(NamedTuple):
    dedup_window: float
    digest: bool
    max_queue: int
    retries: int
    backoff: float
    backoff_max: float
    rate: float
    shared_store: str | RedisLike | RedisClient | None


class AlertPolicy(_Fields):
    """When alerts go out, how often they are tried, and how much may wait.

    Args:
        dedup_window: seconds in which repetitions of an alert are counted instead of sent; 0 sends each one.
        digest: tell the number of repetitions when their window ends; otherwise only the next alert names it.
        max_queue: alerts that may wait; more are dropped and counted.
        retries: tries after the first one, for faults that may pass.
        backoff: seconds before the first retry; doubled each time, up to ``backoff_max``, with jitter.
        backoff_max: longest pause between two tries, in seconds.
        rate: messages a second to the destination, after a burst of three.
        shared_store: Redis (URL or client) in which the processes of an application agree on what was sent.

    Raises:
        ConfigurationError: a value out of its range.
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        dedup_window: float | timedelta = 300,
        digest: bool = True,
        max_queue: int = 1000,
        retries: int = 5,
        backoff: float | timedelta = 0.5,
        backoff_max: float | timedelta = 60,
        rate: float = 1.0,
        shared_store: str | RedisLike | RedisClient | None = None,
    ) -> Self:
        """Check and convert the values."""
        return super().__new__(
            cls,
            dedup_window=seconds(dedup_window, parameter="dedup_window"),
            digest=digest,
            max_queue=_whole(max_queue, parameter="max_queue", minimum=1),
            retries=_whole(retries, parameter="retries", minimum=0),
            backoff=seconds(backoff, parameter="backoff"),
            backoff_max=seconds(backoff_max, parameter="backoff_max"),
            rate=_rate(rate),
            shared_store=shared_store,
        )

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, object]]:
        return (), self._asdict()

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={value!r}" for name, value in zip(self._fields[:-1], self[:-1], strict=True)
        )
        return f"AlertPolicy({shown}, shared_store={'...' if self.shared_store else None})"


def pause_before_retry(policy: AlertPolicy, failures: int, *, random: Callable[[], float]) -> float:
    """Seconds until the next try after ``failures`` failed ones in a row: exponential, half of it by chance."""
    longest = min(policy.backoff_max, policy.backoff * 2.0 ** min(failures - 1, 60))
    return longest * (0.5 + random() / 2)


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """The pause a ``Retry-After`` field asks for (RFC 9110, 10.2.3), at most 300 s; ``None`` when unreadable.

    Args:
        value: delay in seconds or an HTTP date.
        now: wall time in seconds since the epoch.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_CAP)
    moment = _http_date(text)
    return None if moment is None else min(max(0.0, moment - now), RETRY_AFTER_CAP)


def _http_date(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text[:64])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _whole(value: object, *, parameter: str, minimum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigurationError(
            f"{parameter} must be an integer of at least {minimum}, not {type(value).__name__}",
            parameter=parameter,
        )
    return value


def _rate(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value) or value <= 0:
        raise ConfigurationError(
            f"rate must be a finite number of messages a second above 0, not {type(value).__name__}",
            parameter="rate",
        )
    return float(value)
