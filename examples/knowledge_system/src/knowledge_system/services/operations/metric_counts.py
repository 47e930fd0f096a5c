"""Metrics of one process for one minute, as numbers that can be added up."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from knowledge_system.services.operations.limited_clients import LimitedClient

STEPS: Final = (5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 800, 1200, 2000, 5000, 10_000)
"""Upper bounds of the response time buckets in milliseconds; slower requests count in the last one."""
_MOST_SLOW: Final = 10
_MOST_WHOSE: Final = 50
_COUNTERS: Final = ("cache", "refused", "near", "whose", "alerts", "sign_ins", "sessions", "reads")


@dataclass(slots=True)
class SlowStatement:
    """Executions of one statement that were slow, and the routes of the requests that sent them."""

    calls: int
    longest_ms: float
    text: str
    caller: str
    total_ms: float = 0.0
    times: list[int] = field(default_factory=lambda: [0] * len(STEPS))
    routes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def once(cls, text: str, caller: str, *, route: str, duration_ms: float) -> Self:
        """Return the counts of one execution; ``text`` has no values."""
        made = cls(1, duration_ms, text, caller, duration_ms, routes=Counter({route: 1}))
        made.times[_step(duration_ms)] += 1
        return made

    @property
    def p95_ms(self) -> float | None:
        """An upper bound of the 95th percentile; ``None`` for counts of an earlier release."""
        bound = _quantile(self.times, 0.95)
        return None if bound is None else min(bound, self.longest_ms)

    def add(self, other: SlowStatement) -> None:
        """Add the executions of another minute or process."""
        self.calls += other.calls
        self.longest_ms = max(self.longest_ms, other.longest_ms)
        self.total_ms += other.total_ms
        self.times = [mine + theirs for mine, theirs in zip(self.times, other.times, strict=True)]
        self.routes.update(other.routes)


@dataclass(slots=True)
class MetricCounts:
    """Sums over one minute of one process, or over many.

    Attributes:
        requests: requests without health probes.
        failures: responses with a status of 500 or higher.
        times: requests per response time bucket.
        cache: cache reads by outcome.
        refused: requests rejected by a rate limit, by group.
        near: hits close to a rate limit, by group.
        whose: hits close to a rate limit, by user and client; see ``LimitedClient``.
        alerts: alerts by channel and state.
        sign_ins: sign-in events by outcome.
        sessions: session changes by kind.
        reads: reads of pages by the server that served them; see ``PageReads``.
        due: maximum number of waiting tasks; ``None`` if unknown.
        dead: maximum number of failed tasks; ``None`` if unknown.
        slow: slow statements by fingerprint.
    """

    requests: int = 0
    failures: int = 0
    times: list[int] = field(default_factory=lambda: [0] * len(STEPS))
    cache: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    near: Counter[str] = field(default_factory=Counter)
    whose: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    sign_ins: Counter[str] = field(default_factory=Counter)
    sessions: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    due: int | None = None
    dead: int | None = None
    slow: dict[str, SlowStatement] = field(default_factory=dict)

    def request(self, status: int, duration_ms: float) -> None:
        """Count a finished request."""
        self.requests += 1
        self.failures += status >= 500
        self.times[_step(duration_ms)] += 1

    def came_near(self, whose: LimitedClient) -> None:
        """Count a hit close to a rate limit; beyond a maximum per minute, new clients are not recorded."""
        self.near[whose.group] += 1
        if whose.text in self.whose or len(self.whose) < _MOST_WHOSE:
            self.whose[whose.text] += 1

    def statement(self, fingerprint: str, *, statement: SlowStatement) -> None:
        """Count a slow statement; beyond a maximum per minute, new statements are not recorded."""
        known = self.slow.get(fingerprint)
        if known is not None:
            known.add(statement)
        elif len(self.slow) < _MOST_SLOW:
            self.slow[fingerprint] = statement

    def queue(self, due: int | None, dead: int | None) -> None:
        """Record the length of the task queue, which all processes share."""
        self.due = _larger(self.due, due)
        self.dead = _larger(self.dead, dead)

    def quantile(self, share: float) -> int | None:
        """Return the response time quantile for ``share``, rounded up to a bucket; ``None`` without requests."""
        return _quantile(self.times, share)

    @property
    def hit_rate(self) -> float | None:
        """Share of cache reads that were hits, 0 to 1; ``None`` without reads."""
        found = self.cache["hit"] + self.cache["stale"]
        reads = found + self.cache["miss"]
        return found / reads if reads else None

    @property
    def slow_calls(self) -> int:
        """Number of slow statement executions."""
        return sum(each.calls for each in self.slow.values())

    def add(self, other: MetricCounts) -> None:
        """Add the counts of another minute or process."""
        self.requests += other.requests
        self.failures += other.failures
        self.times = [mine + theirs for mine, theirs in zip(self.times, other.times, strict=True)]
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.queue(other.due, other.dead)
        for fingerprint, each in other.slow.items():
            copy = SlowStatement(0, 0.0, each.text, each.caller)
            copy.add(each)
            self.statement(fingerprint, statement=copy)

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as JSON, for the database."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "times": self.times,
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            "due": self.due,
            "dead": self.dead,
            "slow": {
                key: [
                    *(each.calls, each.longest_ms, each.text, each.caller),
                    *(each.total_ms, each.times, dict(each.routes)),
                ]
                for key, each in self.slow.items()
            },
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """Restore the numbers from JSON."""
        return cls(
            requests=kept["requests"],
            failures=kept["failures"],
            times=list(kept["times"]),
            slow={key: _slow(*each) for key, each in kept["slow"].items()},
            # Rows written by the previous release may lack a field.
            due=kept.get("due"),
            dead=kept.get("dead"),
            **{name: Counter(kept.get(name, {})) for name in _COUNTERS},
        )

    @classmethod
    def total(cls, each: Iterable[MetricCounts]) -> Self:
        """Return the sum of all counts."""
        found = cls()
        for counts in each:
            found.add(counts)
        return found


def _slow(  # noqa: PLR0917 - the fields in their stored order
    calls: int,
    longest_ms: float,
    text: str,
    caller: str,
    total_ms: float = 0.0,
    times: Sequence[int] = (0,) * len(STEPS),
    routes: Mapping[str, int] | None = None,
) -> SlowStatement:
    return SlowStatement(calls, longest_ms, text, caller, total_ms, list(times), Counter(routes or {}))


def _step(duration_ms: float) -> int:
    return min(bisect_left(STEPS, duration_ms), len(STEPS) - 1)


def _quantile(times: Sequence[int], share: float) -> int | None:
    wanted, seen = share * sum(times), 0
    for bound, number in zip(STEPS, times, strict=True):
        seen += number
        if number and seen >= wanted:
            return bound
    return None


def _larger(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)
