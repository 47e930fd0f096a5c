"""Metrics for Prometheus: every event of the package under a stable name, in one process or in many.

    from mks_hardening.contrib.prometheus_observer import PrometheusObserver
    from mks_hardening.events import add_observer

    metrics = PrometheusObserver()
    add_observer(metrics)
    metrics.serve(9464)  # http://127.0.0.1:9464/metrics

Several worker processes: set ``PROMETHEUS_MULTIPROC_DIR`` (or ``directory=``), as for ``prometheus_client`` itself.
A request for the metrics to any of them returns the sums of all, including the application's own metrics in the
same directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mks_hardening._core.checks import instances, number, offers, path_text, whole_number
from mks_hardening._core.environment.parsers import parse_text
from mks_hardening._core.environment.variables import Environment
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.contrib._metrics.counters import MetricCounters
from mks_hardening.contrib._metrics.listener import Listener, listening_socket
from mks_hardening.contrib._metrics.metric_definitions import METRICS, REQUEST_BUCKETS
from mks_hardening.contrib._metrics.shared_storage import SharedMetricStorage, forget_dead
from mks_hardening.contrib._metrics.storage import MemoryMetricStorage, MetricRow, MetricStorage
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.samples import Sample

__all__ = ["PrometheusObserver", "metrics_app"]

FromPrometheus: TypeAlias = Any
"""An object of prometheus_client without type annotations."""

_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class PrometheusObserver:
    """Observer that counts every event; pass it to ``mks_hardening.events.add_observer``.

    Names, labels and buckets are documented in ``docs/en/reference/metrics.md``. No label value comes from a
    client: ids, addresses, paths and statements are omitted, and the number of values that come from applications
    and operators is limited.

    Args:
        registry: registry for the metrics, by default that of prometheus_client; for a single process only.
        directory: directory in which several processes share their metrics; ``PROMETHEUS_MULTIPROC_DIR`` by
            default. It must exist on a local file system and belong to this application.
        request_buckets: bucket bounds of ``mks_request_duration_seconds`` in seconds.
        most_label_sets: maximum number of label sets of a metric; further ones are counted under ``other``.

    Attributes:
        directory: the shared directory; ``None`` for a single process.

    Raises:
        ConfigurationError: a parameter is invalid, or the registry already has these metrics.
        MissingDependencyError: prometheus_client is not installed.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        directory: str | os.PathLike[str] | None = None,
        request_buckets: Sequence[float] = REQUEST_BUCKETS,
        most_label_sets: int = 500,
    ) -> None:
        check_installed()
        self.directory: Path | None = _shared_directory(directory)
        self._most = whole_number(most_label_sets, parameter="most_label_sets", minimum=10, maximum=100_000)
        self._buckets = {"mks_request_duration_seconds": _bounds(request_buckets)}
        self._registry = _registry(registry)
        if self.directory is not None and registry is not None:
            raise ConfigurationError(
                "several processes use the directory; a registry is for one process; remove it",
                parameter="registry",
            )
        self.reset_after_fork()
        if self.directory is None:
            try:
                # Single process only: with a directory, the registry of each process would show the sums of all.
                self._registry.register(self)
            except ValueError:
                raise ConfigurationError(
                    "the registry already has these metrics; create only one observer", parameter="registry"
                ) from None
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the metrics in a forked child to zero; those of the parent stay with the parent."""
        if isinstance(before := getattr(self, "_storage", None), SharedMetricStorage):
            before.close()
        self._storage: MetricStorage = (
            MemoryMetricStorage() if self.directory is None else SharedMetricStorage(self.directory)
        )
        self._count = MetricCounters(self._storage, most_label_sets=self._most, buckets=self._buckets).count

    def __call__(self, event: object, /) -> None:
        """Count one event; other objects are ignored."""
        count = self._count.get(type(event))
        if count is not None:
            count(event)

    def describe(self) -> Iterable[Metric]:
        """Return the metric families without values, for the registry."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of this process, or of all that share the directory, for prometheus_client."""
        if isinstance(self._storage, MemoryMetricStorage):
            return _families(self._storage.rows())
        return _SharedCollector(self.directory or Path()).collect()

    def serve(self, port: int = 9464, *, address: str = "127.0.0.1") -> Listener:
        """Serve the metrics on a separate listener; ``close()`` stops it.

        Each process that serves metrics needs its own port; with gunicorn, ``gunicorn_config`` shares one.

        Args:
            port: TCP port; 0 for any free one, which is the ``port`` of the returned listener.
            address: numeric address; metrics are for the operator only, so the default is this machine.

        Raises:
            ConfigurationError: the port is in use or cannot be bound.
        """
        return Listener(metrics_app(self.directory, registry=self._registry), listening_socket(address, port))


def metrics_app(
    directory: str | os.PathLike[str] | None = None, *, registry: CollectorRegistry | None = None
) -> WSGIApplication:
    """Create a WSGI application that returns all metrics, in the format that the scraper requests.

    Args:
        directory: return the metrics of all processes that share this directory.
        registry: registry to use without a directory, by default that of prometheus_client.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
    """
    with optional("prometheus_client", extra="prometheus"):
        import prometheus_client
    shown = _registry(registry)
    if directory is not None:
        shown = prometheus_client.CollectorRegistry(auto_describe=False)
        shown.register(_SharedCollector(Path(path_text(directory, parameter="directory"))))
    client: FromPrometheus = prometheus_client
    app: WSGIApplication = client.make_wsgi_app(shown)
    return app


def shared_samples(directory: Path) -> Iterator[Sample]:
    """Yield the samples of all processes that share a directory.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
    """
    check_installed()
    for family in _SharedCollector(directory).collect():
        yield from family.samples


def _registry(given: CollectorRegistry | None) -> CollectorRegistry:
    from prometheus_client import REGISTRY

    if given is None:
        return REGISTRY
    return offers(given, "register", "collect", parameter="registry", kind="a CollectorRegistry")


def check_installed() -> None:
    """Check at startup what would otherwise fail in every worker.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
    """
    with optional("prometheus_client", extra="prometheus"):
        import prometheus_client  # noqa: F401 - only checks that it can be imported


def worker_ended(directory: Path, pid: int) -> None:
    """Remove the gauges of a process that has ended: ours and those of prometheus_client."""
    from prometheus_client import multiprocess

    forget_dead(directory)
    theirs: FromPrometheus = multiprocess
    theirs.mark_process_dead(pid, path=str(directory))


class _SharedCollector:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics depend on the processes."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all processes; gauges only of those that are alive."""
        from prometheus_client import CollectorRegistry, multiprocess

        forget_dead(self._directory)
        theirs: FromPrometheus = multiprocess
        collector: Collector = theirs.MultiProcessCollector(CollectorRegistry(), path=str(self._directory))
        return map(_grouped, collector.collect())


def _grouped(metric: Metric) -> Metric:
    """Group the samples by label set: OpenMetrics requires it, and older releases do not do it."""
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in metric.samples:
        labels = tuple(sorted(pair for pair in sample.labels.items() if pair[0] != "le"))
        groups.setdefault(labels, []).append(sample)
    metric.samples = [sample for group in groups.values() for sample in group]
    return metric


def _families(rows: Iterable[MetricRow]) -> list[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    families = {
        metric.name: {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "level": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }[metric.kind](metric.name, metric.help, labels=metric.labels)
        for metric in METRICS
    }
    for metric, labels, numbers in rows:
        family = families[metric.name]
        if isinstance(family, HistogramMetricFamily):
            bounds = [*map(repr, metric.buckets), "+Inf"]
            family.add_metric(
                labels,
                buckets=list(zip(bounds, accumulate(numbers[:-1]), strict=True)),
                sum_value=numbers[-1],
            )
        else:
            family.add_metric(labels, numbers[0])
    return list(families.values())


def _shared_directory(given: str | os.PathLike[str] | None) -> Path | None:
    named = Environment().read(_VARIABLE, parse_text) if given is None else given
    if named is None:
        return None
    directory = Path(path_text(named, parameter="directory"))
    # In this order: is_dir raises an error of its own if the name is too long.
    if not os.access(directory, os.W_OK | os.X_OK) or not directory.is_dir():
        raise ConfigurationError(
            f"directory must be a writable folder; create it, or unset {_VARIABLE}",
            parameter="directory",
        )
    return directory


def _bounds(given: Sequence[float]) -> tuple[float, ...]:
    bounds = tuple(
        number(bound, parameter="request_buckets", minimum=0.0, above=True)
        for bound in instances(given, object, parameter="request_buckets")
    )
    if not bounds or any(low >= high for low, high in pairwise(bounds)):
        raise ConfigurationError(
            "request_buckets must be rising numbers of seconds, at least one", parameter="request_buckets"
        )
    return bounds
