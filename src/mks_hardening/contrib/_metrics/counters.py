"""Metric updates from events, in less than a microsecond: one look-up, one lock, one addition."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import RLock
from typing import Any, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.memo import Memo
from mks_hardening.contrib._metrics.metric_definitions import (
    OTHER,
    REFUSED_LABELS,
    RULES,
    Metric,
    MetricRule,
    event_as_key,
)
from mks_hardening.contrib._metrics.storage import MetricCells, MetricStorage

__all__ = ["MetricCounters"]

Event: TypeAlias = Any  # of the class that the metric names
Count: TypeAlias = Callable[[Event], None]


class MetricCounters:
    """Counters of events in a metric storage.

    Args:
        storage: storage that allocates the cells.
        most_label_sets: maximum number of label sets of one metric; further ones are counted under ``other``.
        buckets: bucket bounds by histogram name, in place of those in the definitions.
        rules: rules that map events to metrics.
    """

    def __init__(
        self,
        storage: MetricStorage,
        *,
        most_label_sets: int,
        buckets: Mapping[str, tuple[float, ...]],
        rules: Sequence[MetricRule] = RULES,
    ) -> None:
        self._storage = storage
        self._most = most_label_sets
        self._buckets = buckets
        # Reentrant: allocating cells may be interrupted by a signal whose handler counts as well.
        self._asking = RLock()
        self._lock = RLock()
        self._known: dict[str, dict[tuple[str, ...], MetricCells]] = {}
        by_event: dict[type, list[Count]] = {}
        for rule in rules:
            by_event.setdefault(rule.event, []).append(self._counting(rule))
        #: Function to call with an event, by event class.
        self.count: Mapping[type, Count] = {
            event: counts[0] if len(counts) == 1 else _each(*counts) for event, counts in by_event.items()
        }

    def _counting(self, rule: MetricRule) -> Count:
        """Return a specialized closure per kind of rule: branches inside would cost as much as the work."""
        key, lock, amount, seconds = rule.key, self._lock, rule.amount, rule.seconds
        cells: Memo[Hashable, tuple[MetricCells | None, MetricCells | None]] = Memo(
            lambda parts: self._look_up(rule, parts), entries=4 * self._most
        )

        if seconds is not None and rule.timed is not None:
            bounds = self._bounds(rule.timed)

            def time(event: Event) -> None:
                counted, timed = cells[key(event)]
                took = seconds(event)
                bucket = bisect_left(bounds, took)
                with lock:
                    if counted is not None:
                        counted[0][counted[1][0]] += 1.0
                    if timed is not None:
                        numbers, places = timed
                        numbers[places[bucket]] += 1.0
                        numbers[places[-1]] += took

            return time

        if amount is not None and rule.counted is not None and rule.counted.kind == "level":
            now = SYSTEM_CLOCK.time

            def put(event: Event) -> None:
                counted, _ = cells[key(event)]
                if counted is not None:
                    numbers, (place, time) = counted
                    with lock:
                        numbers[place] = float(amount(event))
                        numbers[time] = now()

            return put

        if amount is not None:

            def add(event: Event) -> None:
                counted, _ = cells[key(event)]
                if counted is not None:
                    numbers, (place,) = counted
                    with lock:
                        # Only a gauge can decrease: a breaker may have opened before the observer was added.
                        numbers[place] = max(0.0, numbers[place] + amount(event))

            return add

        if key is event_as_key:

            def count_event(event: Event) -> None:
                counted, _ = cells[event]
                if counted is not None:
                    numbers, (place,) = counted
                    with lock:
                        numbers[place] += 1.0

            return count_event

        def one(event: Event) -> None:
            counted, _ = cells[key(event)]
            if counted is not None:
                numbers, (place,) = counted
                with lock:
                    numbers[place] += 1.0

        return one

    def _bounds(self, metric: Metric) -> tuple[float, ...]:
        return self._buckets.get(metric.name, metric.buckets)

    def _look_up(self, rule: MetricRule, parts: Hashable) -> tuple[MetricCells | None, MetricCells | None]:
        values = rule.labels(*parts) if isinstance(parts, tuple) else rule.labels(parts)
        with self._asking:
            return self._cells(rule.counted, values), self._cells(rule.timed, values)

    def _cells(self, metric: Metric | None, values: Mapping[str, str]) -> MetricCells | None:
        if metric is None:
            return None
        labels = tuple(values[name] for name in metric.labels)
        known = self._known.setdefault(metric.name, {})
        found = known.get(labels)
        if found is None:
            if len(known) >= self._most and metric is not REFUSED_LABELS:
                self._refuse(metric)
                labels = (OTHER,) * len(labels)
                if labels in known:
                    return known[labels]
            found = self._storage.cells(metric._replace(buckets=self._bounds(metric)), labels)
            known[labels] = found
        return found

    def _refuse(self, metric: Metric) -> None:
        cells = self._cells(REFUSED_LABELS, {"metric": metric.name})
        if cells is not None:
            with self._lock:
                cells.numbers[cells.places[0]] += 1.0


def _each(*counts: Count) -> Count:
    def count(event: Event) -> None:
        for each in counts:
            each(event)

    return count
