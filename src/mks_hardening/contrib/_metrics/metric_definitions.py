"""All metrics, and the rules that map events to them: the single source for counters, documentation and tests.

Names, labels and buckets are a contract with dashboards and alert rules. No label value comes from a client: words
and statuses are validated, methods are known ones, and the rest is named by the application or its operator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from mks_hardening import events

__all__ = [
    "METRICS",
    "OTHER",
    "REFUSED_LABELS",
    "REQUEST_BUCKETS",
    "RULES",
    "Metric",
    "MetricRule",
    "event_as_key",
]

OTHER: Final = "other"
"""Label value for texts that are too long, not a word, or beyond the maximum number of values."""

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"}
)
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", re.ASCII).fullmatch
_LONGEST: Final = 200

REQUEST_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds; from a cached response to the timeout of a typical worker."""
_QUERY_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TASK_BUCKETS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)


class Metric(NamedTuple):
    """One metric family with fixed labels; the unit is part of the name.

    ``kind`` is ``counter``, ``histogram``, ``gauge`` (summed over living processes) or ``level``: exposed as a
    gauge, with the value of the process that measured last.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


class MetricRule(NamedTuple):
    """Rule that maps one kind of event to metrics.

    Attributes:
        event: class of the event.
        key: function that returns the parts of an event that determine the labels.
        labels: function that returns the label values for these parts.
        counted: counter or gauge to change, or level to set.
        amount: function that returns the change or the level; 1 if ``None``.
        timed: histogram to update.
        seconds: function that returns the duration for the histogram.
    """

    event: type
    key: Callable[[Any], Hashable]
    labels: Callable[..., Mapping[str, str]]
    counted: Metric | None = None
    amount: Callable[[Any], float] | None = None
    timed: Metric | None = None
    seconds: Callable[[Any], float] | None = None


# --- label values


def _word(value: object) -> str:
    text = str(value)
    return text if not text or _WORD(text) else OTHER


def _name(value: str | None) -> str:
    """Return a name from the application or its operator: any short printable text."""
    text = value or ""
    return text if len(text) <= _LONGEST and text.isprintable() else OTHER


def _request(method: str, route: str | None, status: int, outcome: str) -> dict[str, str]:
    return {
        "method": method if method in _METHODS else OTHER,
        "route": _name(route),
        "status": str(status) if 0 <= status <= 999 else OTHER,
        "outcome": _word(outcome),
    }


def _decision(group: str, allowed: bool, source: str, dry_run: bool) -> dict[str, str]:  # noqa: FBT001 - as in the event
    outcome = "allowed" if allowed else "would_refuse" if dry_run else "refused"
    return {"group": _name(group), "outcome": outcome, "source": _word(source)}


def _factor(change: str, method: str, reason: str, actor: str) -> dict[str, str]:
    # An actor other than the user gives a reason in free text.
    return {"change": _word(change), "method": _word(method), "reason": "" if actor else _word(reason)}


def _labels(**kinds: Callable[[Any], str]) -> Callable[..., dict[str, str]]:
    """Build label values, each from the part of the key at the same position."""
    return lambda *parts: {name: kind(part) for (name, kind), part in zip(kinds.items(), parts, strict=True)}


def _nothing(_event: Hashable) -> Hashable:
    return ()


def event_as_key(event: Hashable) -> Hashable:
    """Return the event itself as its key: all of it goes into labels."""
    return event


def _milliseconds(index: int) -> Callable[[Any], float]:
    return lambda event: event[index] / 1000


def _open_breaker_change(event: events.BreakerChanged) -> int:
    return (event.before == "closed") - (event.after == "closed")


# --- metrics


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"mks_{name}_total", "counter", meaning, labels)


def _level(name: str, meaning: str) -> Metric:
    return Metric(f"mks_{name}", "level", meaning, ())


REQUESTS: Final = _counter(
    "requests", "Requests completed or aborted.", "method", "route", "status", "outcome"
)
REQUEST_SECONDS: Final = Metric(
    "mks_request_duration_seconds",
    "histogram",
    "Time from the first byte of a request to the last byte of its response.",
    ("method", "route"),
    REQUEST_BUCKETS,
)
REFUSALS: Final = _counter("requests_refused", "Requests refused by a middleware.", "wrapper", "reason")
DECISIONS: Final = _counter("rate_limit_decisions", "Decisions of rate limits.", "group", "outcome", "source")
NEAR: Final = _counter("rate_limit_near", "Hits that brought a key to 80 % of a limit.", "group", "limit")
READS: Final = _counter("cache_reads", "Reads of a cache by outcome.", "namespace", "outcome", "reason")
CALLS: Final = _counter(
    "cached_calls", "Calls of cached functions by outcome.", "function", "outcome", "reason"
)
SESSIONS: Final = _counter(
    "session_changes", "Sessions started, rotated, ended, refused.", "change", "reason"
)
FACTORS: Final = _counter(
    "two_factor_events", "Changes and verifications of second factors.", "change", "method", "reason"
)
FAILURES: Final = _counter(
    "backend_failures", "Failed calls to servers outside the process.", "backend", "operation", "reason"
)
BREAKER_CHANGES: Final = _counter("breaker_changes", "Circuit breakers opened or closed.", "backend", "state")
BREAKERS: Final = Metric(
    "mks_breakers_not_closed", "gauge", "Circuit breakers that are holding calls back.", ("backend",)
)
QUERY_SECONDS: Final = Metric(
    "mks_slow_query_duration_seconds",
    "histogram",
    "Statements above the threshold of the slow query monitor.",
    ("outcome",),
    _QUERY_BUCKETS,
)
SIGN_INS: Final = _counter(
    "sign_in_events", "Steps of sign-ins and changes of credentials.", "change", "method", "reason"
)
POOL: Final = _counter("pool_events", "Connection pools exhausted, connections abandoned.", "change")
ALERTS: Final = _counter("alerts", "Alerts by outcome.", "channel", "state", "reason")
LOGS: Final = _counter("log_records_dropped", "Log records that were lost.", "handler", "reason")
TASKS: Final = _counter("task_runs", "Ended runs of background tasks.", "task", "outcome")
TASK_SECONDS: Final = Metric(
    "mks_task_duration_seconds", "histogram", "Length of runs of background tasks.", ("task",), _TASK_BUCKETS
)
DUE: Final = _level("task_queue_due", "Tasks that are due and not running.")
OLDEST_DUE: Final = _level("task_queue_oldest_due_seconds", "How long the oldest of them has been due.")
RUNNING: Final = _level("task_queue_running", "Tasks that are running.")
DEAD: Final = _level("task_queue_dead", "Tasks that failed permanently and wait for an operator.")
STALLED: Final = _level("task_queue_stalled", "1 if tasks are due and no worker takes them.")
REFUSED_LABELS: Final = _counter(
    "metric_label_sets_refused", "New label values above the limit, counted under `other`.", "metric"
)


RULES: Final = (
    MetricRule(
        events.RequestFinished,
        itemgetter(0, 1, 2, 4),
        _request,
        counted=REQUESTS,
        timed=REQUEST_SECONDS,
        seconds=_milliseconds(3),
    ),
    MetricRule(
        events.RequestRefused, itemgetter(0, 1), _labels(wrapper=_word, reason=_word), counted=REFUSALS
    ),
    MetricRule(events.RateLimitDecided, event_as_key, _decision, counted=DECISIONS),
    MetricRule(
        events.RateLimitNear,
        itemgetter(0, 1),
        _labels(group=_name, limit=_name),
        counted=NEAR,
    ),
    MetricRule(
        events.CacheRead, event_as_key, _labels(namespace=_name, outcome=_word, reason=_word), counted=READS
    ),
    MetricRule(
        events.CachedCall, event_as_key, _labels(function=_name, outcome=_word, reason=_word), counted=CALLS
    ),
    MetricRule(
        events.SessionChanged, itemgetter(0, 1), _labels(change=_word, reason=_word), counted=SESSIONS
    ),
    MetricRule(events.TwoFactorEvent, itemgetter(0, 2, 3, 4), _factor, counted=FACTORS),
    MetricRule(
        events.BackendFailed,
        itemgetter(0, 1, 2),
        _labels(backend=_name, operation=_name, reason=_word),
        counted=FAILURES,
    ),
    MetricRule(
        events.BreakerChanged, itemgetter(0, 2), _labels(backend=_name, state=_word), counted=BREAKER_CHANGES
    ),
    MetricRule(
        events.BreakerChanged,
        itemgetter(0),
        _labels(backend=_name),
        counted=BREAKERS,
        amount=_open_breaker_change,
    ),
    MetricRule(events.SignInEvent, itemgetter(0, 4, 3, 5), _factor, counted=SIGN_INS),
    MetricRule(
        events.SlowQuery,
        itemgetter(2),
        _labels(outcome=_word),
        timed=QUERY_SECONDS,
        seconds=_milliseconds(1),
    ),
    MetricRule(events.PoolEvent, itemgetter(0), _labels(change=_word), counted=POOL),
    MetricRule(
        events.AlertsCounted,
        itemgetter(0, 1, 3),
        _labels(channel=_word, state=_word, reason=_word),
        counted=ALERTS,
        amount=itemgetter(2),
    ),
    MetricRule(
        events.LogsDropped,
        itemgetter(0, 2),
        _labels(handler=_name, reason=_name),
        counted=LOGS,
        amount=itemgetter(1),
    ),
    MetricRule(
        events.TaskChanged,
        itemgetter(0, 1),
        _labels(task=_name, outcome=_word),
        counted=TASKS,
        timed=TASK_SECONDS,
        seconds=itemgetter(2),
    ),
    *(
        MetricRule(events.TaskQueueSeen, _nothing, _labels(), counted=level, amount=itemgetter(index))
        for index, level in enumerate((DUE, OLDEST_DUE, RUNNING, DEAD, STALLED))
    ),
)

METRICS: Final = (
    *dict.fromkeys(metric for rule in RULES for metric in (rule.counted, rule.timed) if metric is not None),
    REFUSED_LABELS,
)
"""Every metric, in the order of the documentation."""
