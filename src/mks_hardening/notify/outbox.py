"""The line of alerts in front of one destination: what goes next, when, and what happens after a failure.

A state machine over a clock that sends nothing itself. Its owner asks ``next_step``, carries it out, and reports
``succeeded`` or ``failed``; one parcel is under way at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening.notify.alert import Alert
from mks_hardening.notify.policy import BURST, AlertPolicy, pause_before_retry

if TYPE_CHECKING:
    from mks_hardening.notify.spool import Claim

__all__ = ["Outbox", "Parcel"]

# Up to this many alerts that wait go out one by one; more become summaries of at most this size.
_SINGLE: Final = 5
_SUMMARY: Final = 40


class Parcel(NamedTuple):
    """Alerts that go out as one message, and how often that was tried.

    Attributes:
        id: fixed before the first try, so that a second copy can be recognised.
        alerts: at least one.
        tries: failed tries so far.
        claims: what the spool wants back when the alerts came from there.
    """

    id: str
    alerts: tuple[Alert, ...]
    tries: int = 0
    claims: tuple[Claim, ...] = ()

    @property
    def weight(self) -> int:
        """Records in the sums that this parcel stands for; those from the spool were counted before."""
        return 0 if self.claims else sum(alert.weight for alert in self.alerts)


class Outbox:
    """Alerts waiting for one destination.

    Args:
        policy: retries, pauses, rate.
        spooling: whether there is a spool, so that nothing needs to wait for a destination that is down.
        random: numbers in [0, 1) for the jitter.
        new_id: makes the ids of summaries.
    """

    def __init__(
        self, policy: AlertPolicy, *, spooling: bool, random: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self._policy = policy
        self._spooling = spooling
        self._random = random
        self._new_id = new_id
        self._waiting: deque[Parcel] = deque()
        self._under_way: Parcel | None = None
        self._failures = 0
        self._not_before = float("-inf")
        self._tokens = float(BURST)
        self._refilled = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and self._under_way is None

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    @property
    def down(self) -> bool:
        """Whether the destination failed more often in a row than one alert is tried."""
        return self._failures > self._policy.retries

    def add(self, alerts: Iterable[Alert]) -> None:
        """Put alerts at the end of the line, each a parcel of its own."""
        self._waiting.extend(Parcel(alert.id, (alert,)) for alert in alerts)

    def add_replay(self, alerts: Iterable[Alert], claims: Iterable[Claim]) -> None:
        """Put alerts from the spool at the end of the line, together in one parcel."""
        several = tuple(alerts)
        self._waiting.append(
            Parcel(several[0].id if len(several) == 1 else self._new_id(), several, claims=tuple(claims))
        )

    def wait(self, *, now: float) -> float:
        """Seconds until the destination may be tried: pauses after failures, and the rate."""
        self._refill(now)
        for_token = 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._policy.rate
        return max(0.0, self._not_before - now, for_token)

    def take(self, *, now: float) -> Parcel | None:
        """The parcel to send now, or ``None`` when nothing waits or the destination may not be tried yet."""
        if self._under_way is not None or not self._waiting or self.wait(now=now) > 0:
            return None
        self._tokens -= 1
        self._under_way = self._next_parcel()
        return self._under_way

    def succeeded(self) -> None:
        """The parcel under way was accepted."""
        self._under_way, self._failures = None, 0

    def refused(self) -> list[Parcel]:
        """The parcel under way was refused for good; that says nothing about the next one."""
        parcel = self._under_way
        self._under_way, self._failures = None, 0
        return [parcel] if parcel else []

    def failed(self, *, now: float, retry_after: float | None = None) -> list[Parcel]:
        """The parcel under way failed for now; returns the parcels that are given up."""
        parcel = self._under_way
        if parcel is None:
            return []
        self._under_way = None
        self._failures += 1
        pause = pause_before_retry(self._policy, self._failures, random=self._random)
        self._not_before = now + (pause if retry_after is None else max(retry_after, 0.0))
        parcel = parcel._replace(tries=parcel.tries + 1)
        if parcel.claims or parcel.tries > self._policy.retries or (self.down and self._spooling):
            return [parcel, *(self.clear() if self.down and self._spooling else ())]
        self._waiting.appendleft(parcel)
        return []

    def clear(self) -> list[Parcel]:
        """Take everything that waits out of the line."""
        rest = list(self._waiting)
        self._waiting.clear()
        return rest

    def seize(self) -> list[Parcel]:
        """Take everything, with what is under way; a result that comes later is ignored."""
        under_way, self._under_way = self._under_way, None
        return [*([under_way] if under_way else ()), *self.clear()]

    def is_under_way(self, parcel: Parcel) -> bool:
        """Whether a result of this parcel is still wanted."""
        return self._under_way is parcel

    def _next_parcel(self) -> Parcel:
        head = self._waiting.popleft()
        if head.tries or head.claims or len(self._waiting) < _SINGLE:
            return head
        together = [head]
        while self._waiting and len(together) < _SUMMARY and not self._waiting[0].claims:
            together.append(self._waiting.popleft())
        return Parcel(self._new_id(), tuple(parcel.alerts[0] for parcel in together))

    def _refill(self, now: float) -> None:
        gained = (now - self._refilled) * self._policy.rate
        self._tokens = min(float(BURST), self._tokens + gained)
        self._refilled = now
