"""Where the numbers stand: cells of floating-point numbers, handed out once for each set of label values."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import NamedTuple, Protocol

from mks_hardening.contrib._metrics.definitions import Metric

__all__ = ["MemoryMetricStorage", "MetricCells", "MetricRow", "MetricStorage"]


class MetricCells(NamedTuple):
    """Where the numbers of one set of label values stand.

    Attributes:
        numbers: what they stand in.
        places: one place for a counter or gauge; for a level a second one for the time at which it was seen; for
            a histogram one a bucket (not cumulated, the last for what lies above all bounds), and one for the sum.
    """

    numbers: MutableSequence[float]
    places: tuple[int, ...]


class MetricRow(NamedTuple):
    """The numbers of one set of label values, in the order of ``MetricCells.places``."""

    metric: Metric
    labels: tuple[str, ...]
    numbers: tuple[float, ...]


class MetricStorage(Protocol):
    """Hands out cells; asked once for each set of label values, by one thread at a time."""

    def cells(self, metric: Metric, labels: tuple[str, ...], /) -> MetricCells:
        """Cells for this set, zero or as a predecessor left them."""
        ...

    def close(self) -> None:
        """Let go of them; harmless when called twice."""
        ...


class MemoryMetricStorage:
    """Numbers of this process alone."""

    def __init__(self) -> None:
        self._rows: list[tuple[Metric, tuple[str, ...], list[float]]] = []

    def cells(self, metric: Metric, labels: tuple[str, ...], /) -> MetricCells:
        """Fresh cells."""
        size = len(metric.buckets) + 2 if metric.buckets else 1 + (metric.kind == "level")
        numbers = [0.0] * size
        self._rows.append((metric, labels, numbers))
        return MetricCells(numbers, tuple(range(size)))

    def rows(self) -> Iterator[MetricRow]:
        """Everything counted so far."""
        for metric, labels, numbers in tuple(self._rows):
            yield MetricRow(metric, labels, tuple(numbers))

    def close(self) -> None:
        """Nothing is held."""
