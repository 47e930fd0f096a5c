"""Storage of metric values: cells of floating-point numbers, allocated once per label set."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import NamedTuple, Protocol

from mks_hardening.contrib._metrics.metric_definitions import Metric

__all__ = ["MemoryMetricStorage", "MetricCells", "MetricRow", "MetricStorage"]


class MetricCells(NamedTuple):
    """Location of the values of one label set.

    Attributes:
        numbers: sequence that contains the values.
        places: indexes into it: one for a counter or gauge; for a level a second one for the time of the
            measurement; for a histogram one per bucket (not cumulative, the last for values above all bounds) and
            one for the sum.
    """

    numbers: MutableSequence[float]
    places: tuple[int, ...]


class MetricRow(NamedTuple):
    """The values of one label set, in the order of ``MetricCells.places``."""

    metric: Metric
    labels: tuple[str, ...]
    numbers: tuple[float, ...]


class MetricStorage(Protocol):
    """Allocation of cells; used once per label set, by one thread at a time."""

    def cells(self, metric: Metric, labels: tuple[str, ...], /) -> MetricCells:
        """Return cells for a label set, zero or with the values that a previous process left."""
        ...

    def close(self) -> None:
        """Release the storage; may be called twice."""
        ...


class MemoryMetricStorage:
    """Metric values of this process only."""

    def __init__(self) -> None:
        self._rows: list[tuple[Metric, tuple[str, ...], list[float]]] = []

    def cells(self, metric: Metric, labels: tuple[str, ...], /) -> MetricCells:
        """Return new cells."""
        size = len(metric.buckets) + 2 if metric.buckets else 1 + (metric.kind == "level")
        numbers = [0.0] * size
        self._rows.append((metric, labels, numbers))
        return MetricCells(numbers, tuple(range(size)))

    def rows(self) -> Iterator[MetricRow]:
        """Yield all values."""
        for metric, labels, numbers in tuple(self._rows):
            yield MetricRow(metric, labels, tuple(numbers))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
