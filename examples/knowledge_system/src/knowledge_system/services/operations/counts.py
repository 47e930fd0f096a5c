"""What one process counts in one minute, as plain numbers that can be added up."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from knowledge_system.services.operations.limited_clients import Whose

__all__ = ["STEPS", "Counts", "SlowStatement"]

STEPS: Final = (5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 800, 1200, 2000, 5000, 10_000)
"""Upper bounds of response times in milliseconds; a request that takes longer counts as the last."""
_MOST_SLOW: Final = 10
_MOST_WHOSE: Final = 50
_COUNTERS: Final = ("cache", "refused", "near", "whose", "alerts", "sign_ins", "sessions")


@dataclass(slots=True)
class SlowStatement:
    """A statement that was slow: how often, how slow at worst, its text without values, where it was asked."""

    calls: int
    longest_ms: float
    text: str
    caller: str


@dataclass(slots=True)
class Counts:
    """Sums of one minute of one process, or of many.

    Attributes:
        requests: answered, probes apart.
        failures: answered with a status from 500.
        times: requests by the step of their response time.
        cache: reads by outcome.
        refused: hits beyond a limit, by group.
        near: hits that came close to one, by group.
        whose: the same by what is known of whose they are, see ``Whose``.
        alerts: by channel and state.
        sign_ins: by outcome.
        sessions: by what became of them.
        due: tasks that waited, at most; ``None`` where nobody looked.
        dead: tasks that are given up, at most.
        slow: statements by fingerprint.
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
    due: int | None = None
    dead: int | None = None
    slow: dict[str, SlowStatement] = field(default_factory=dict)

    def request(self, status: int, duration_ms: float) -> None:
        """One more request was answered."""
        self.requests += 1
        self.failures += status >= 500
        self.times[min(bisect_left(STEPS, duration_ms), len(STEPS) - 1)] += 1

    def came_near(self, whose: Whose) -> None:
        """A hit came close to a limit; of too many clients in a minute the first ones are kept."""
        self.near[whose.group] += 1
        if whose.text in self.whose or len(self.whose) < _MOST_WHOSE:
            self.whose[whose.text] += 1

    def statement(self, fingerprint: str, *, told: SlowStatement) -> None:
        """A statement was slow; of too many different ones in a minute the first ones are kept."""
        known = self.slow.get(fingerprint)
        if known is not None:
            known.calls += told.calls
            known.longest_ms = max(known.longest_ms, told.longest_ms)
        elif len(self.slow) < _MOST_SLOW:
            self.slow[fingerprint] = told

    def queue(self, due: int | None, dead: int | None) -> None:
        """Somebody has looked at the queue of tasks, which is one for all processes."""
        self.due = _larger(self.due, due)
        self.dead = _larger(self.dead, dead)

    def quantile(self, share: float) -> int | None:
        """The time within which so many requests were answered, rounded up to a step; ``None`` without any."""
        wanted, seen = share * self.requests, 0
        for bound, number in zip(STEPS, self.times, strict=True):
            seen += number
            if number and seen >= wanted:
                return bound
        return None

    @property
    def hit_rate(self) -> float | None:
        """Share of reads that the cache had, 0 to 1; ``None`` without any."""
        found = self.cache["hit"] + self.cache["stale"]
        reads = found + self.cache["miss"]
        return found / reads if reads else None

    @property
    def slow_calls(self) -> int:
        """How many statements were slow."""
        return sum(each.calls for each in self.slow.values())

    def add(self, other: Counts) -> None:
        """Take those of another minute or process in."""
        self.requests += other.requests
        self.failures += other.failures
        self.times = [mine + theirs for mine, theirs in zip(self.times, other.times, strict=True)]
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.queue(other.due, other.dead)
        for fingerprint, each in other.slow.items():
            copy = SlowStatement(each.calls, each.longest_ms, each.text, each.caller)
            self.statement(fingerprint, told=copy)

    def as_json(self) -> dict[str, Any]:
        """The numbers for the database."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "times": self.times,
            "cache": dict(self.cache),
            "refused": dict(self.refused),
            "near": dict(self.near),
            "whose": dict(self.whose),
            "alerts": dict(self.alerts),
            "sign_ins": dict(self.sign_ins),
            "sessions": dict(self.sessions),
            "due": self.due,
            "dead": self.dead,
            "slow": {
                key: [each.calls, each.longest_ms, each.text, each.caller] for key, each in self.slow.items()
            },
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """The numbers from the database."""
        return cls(
            requests=kept["requests"],
            failures=kept["failures"],
            times=list(kept["times"]),
            slow={key: SlowStatement(*each) for key, each in kept["slow"].items()},
            # A row of the release before may lack one.
            due=kept.get("due"),
            dead=kept.get("dead"),
            **{name: Counter(kept.get(name, {})) for name in _COUNTERS},
        )

    @classmethod
    def total(cls, each: Iterable[Counts]) -> Self:
        """All of them together."""
        found = cls()
        for counts in each:
            found.add(counts)
        return found


def _larger(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)
