"""Traces and metrics for OpenTelemetry: spans of requests and statements, span events of the cache, and counters.

    from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
    from mks_hardening.events import add_observer

    telemetry = OpenTelemetryObserver()
    add_observer(telemetry)  # events of the cache, and metrics
    app = harden_wsgi(app, settings, tracer=telemetry)  # spans of requests
    telemetry.watch_engine(engine)  # spans of statements

The SDK that the application configures processes them; without an SDK, nothing is recorded. Names follow the
semantic conventions: HTTP and database spans and metrics as of 1.33 (stable).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import offers
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.record_attributes import CONTEXT_ATTRIBUTE
from mks_hardening.contrib._metrics.counters import MetricCounters
from mks_hardening.contrib._metrics.metric_definitions import (
    METRICS,
    REQUEST_BUCKETS,
    RULES,
    Metric,
    MetricRule,
)
from mks_hardening.contrib._metrics.storage import MemoryMetricStorage
from mks_hardening.contrib._traces.request_span import (
    Attributes,
    end_attributes,
    method_of,
    outcome_of,
    span_name,
    start_attributes,
)
from mks_hardening.contrib._traces.statement_span import StatementSpans, labels_of
from mks_hardening.events import CacheRead, RequestFinished

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
    from opentelemetry.trace import Span, Tracer, TracerProvider
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.db.watch._execution import Execution
    from mks_hardening.protocols import Clock

__all__ = ["OpenTelemetryObserver", "SpanFilter", "trace_headers"]

_SCOPE: Final = "mks_hardening"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.33.0"
# The buckets that the conventions recommend for this metric.
_QUERY_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks for an SDK, as long as there is none."""
# Requests have a metric of the semantic conventions, with these labels and more.
_RULES: Final = tuple(rule for rule in RULES if rule.event is not RequestFinished)


class OpenTelemetryObserver:
    """Observer for spans of requests (as ``tracer``) and statements (``watch_engine``), and metrics of all events.

    A request with a ``traceparent`` from a trusted peer continues that trace. The ids of the span appear in all log
    records of the request. Attributes contain no secrets: paths and queries are those of the request log, values
    are removed from statements, and of exceptions only the class is recorded.

    Args:
        tracer_provider: the application's; if ``None`` the global one, at most a second after it is set.
        meter_provider: likewise.
        clock: source of time.

    Raises:
        MissingDependencyError: the API of OpenTelemetry is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        with optional("opentelemetry", extra="opentelemetry"):
            from opentelemetry import context, metrics, trace
        if tracer_provider is not None:
            offers(tracer_provider, "get_tracer", parameter="tracer_provider", kind="a TracerProvider")
        if meter_provider is not None:
            offers(meter_provider, "get_meter", parameter="meter_provider", kind="a MeterProvider")
        self._clock = given_clock(clock)
        self._tracer: Tracer = trace.get_tracer(_SCOPE, None, tracer_provider, schema_url=_SCHEMA)
        self._meter: Meter = metrics.get_meter(_SCOPE, "", meter_provider, schema_url=_SCHEMA)
        self._has_no_sdk = tracer_provider is None and meter_provider is None
        self._next_check = 0.0
        self._trace = trace
        self._metrics = metrics
        # Looked up once: every request begins a span.
        self._attach = context.attach
        self._current_span = trace.get_current_span
        self._with_span = trace.set_span_in_context
        self._server = trace.SpanKind.SERVER
        self._requests = self._histogram(
            "http.server.request.duration", "Duration of HTTP server requests.", REQUEST_BUCKETS
        )
        self._statements = self._histogram(
            "db.client.operation.duration", "Duration of database client operations.", _QUERY_SECONDS
        )
        self._timed = {
            rule.event: _recording(
                rule,
                rule.timed,
                self._histogram(_name(rule.timed), rule.timed.help, rule.timed.buckets),
            )
            for rule in _RULES
            if rule.timed is not None
        }
        self._watched: dict[object, Callable[[Execution], None]] = {}
        self.reset_after_fork()
        self._show_counts()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the counters in a forked child."""
        self._storage = MemoryMetricStorage()
        self._count = MetricCounters(self._storage, most_label_sets=500, buckets={}, rules=_RULES).count

    def _histogram(self, name: str, meaning: str, bounds: tuple[float, ...]) -> Histogram:
        return self._meter.create_histogram(name, "s", meaning, explicit_bucket_boundaries_advisory=bounds)

    # --- events

    def __call__(self, event: object, /) -> None:
        """Count one event; a cache read is also added to the current span as an event."""
        count = self._count.get(type(event))
        if count is not None:
            count(event)
        timed = self._timed.get(type(event))
        if timed is not None:
            timed(event)
        elif type(event) is CacheRead:
            span = self._trace.get_current_span()
            if span.is_recording():
                span.add_event(
                    "mks.cache.read",
                    {
                        "mks.cache.namespace": event.namespace,
                        "mks.cache.outcome": event.outcome,
                        "mks.cache.reason": event.reason,
                    },
                )

    def _show_counts(self) -> None:
        """Create an instrument for each metric of the definitions, read when the SDK collects."""
        # Observable instruments: counting stays a single addition, and nothing is done between two collections.
        for metric in METRICS:
            if metric.kind == "counter":
                self._meter.create_observable_counter(_name(metric), [self._reader(metric)], "", metric.help)
            elif metric.kind in ("gauge", "level"):
                self._meter.create_observable_gauge(_name(metric), [self._reader(metric)], "", metric.help)

    def _reader(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_options: CallbackOptions) -> Iterable[Observation]:
            for row in self._storage.rows():
                if row.metric.name == metric.name:
                    labels = dict(zip(metric.labels, row.labels, strict=True))
                    yield self._metrics.Observation(row.numbers[0], labels)

        return read

    # --- requests

    def begin(self, environ: Mapping[str, Any], /) -> _OpenTelemetrySpan | None:
        """Start the span of a request; called by the request logging middleware."""
        if self._has_no_sdk and not self._check_for_sdk():
            return None
        known = self._current_span().get_span_context()
        if known.is_valid:
            # Another instrumentation has started a span: a second one would count the request twice.
            return _OpenTelemetrySpan(None, f"{known.trace_id:032x}", f"{known.span_id:016x}", "", None)
        attributes = start_attributes(environ)
        traceparent = environ.get("HTTP_TRACEPARENT")
        parent = None if traceparent is None else _parent(traceparent, environ.get("HTTP_TRACESTATE"))
        method = str(attributes["http.request.method"])
        span = self._tracer.start_span(span_name(method, None), parent, self._server, attributes)
        self._attach(self._with_span(span))
        ids, scheme = span.get_span_context(), str(attributes["url.scheme"])
        if not ids.is_valid:
            return _OpenTelemetrySpan(None, "", "", scheme, self._requests)
        # A span that the sampler drops has ids for the log, but nothing to record at its end.
        kept = span if span.is_recording() else None
        return _OpenTelemetrySpan(kept, f"{ids.trace_id:032x}", f"{ids.span_id:016x}", scheme, self._requests)

    def _check_for_sdk(self) -> bool:
        """Check whether an SDK has been configured, which may happen at any time and is never undone."""
        now = self._clock.monotonic()
        if now < self._next_check:  # the check below costs more than everything else
            return False
        self._next_check = now + _CHECK_INTERVAL
        self._has_no_sdk = (
            type(self._trace.get_tracer_provider()) is self._trace.ProxyTracerProvider
            and type(self._metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
        )
        return not self._has_no_sdk

    # --- statements

    def watch_engine(self, engine: Engine | AsyncEngine) -> None:
        """Record a span for every statement of an engine; calling it twice has no effect.

        Raises:
            ConfigurationError: the argument is not an engine.
        """
        from mks_hardening.db.watch._instrument import attach

        if engine not in self._watched:
            self._watched[engine] = listener = StatementSpans(engine, self._statement).finished
            attach(engine, listener, clock=self._clock)

    def unwatch_engine(self, engine: Engine | AsyncEngine) -> None:
        """Stop recording the statements of an engine; has no effect if it is not watched."""
        from mks_hardening.db.watch._instrument import detach

        listener = self._watched.pop(engine, None)
        if listener is not None:
            detach(engine, listener)

    def _statement(self, name: str, attributes: Attributes, seconds: float) -> None:
        """Record a statement that has just ended."""
        if self._has_no_sdk and not self._check_for_sdk():
            return
        self._statements.record(seconds, labels_of(attributes))
        parent = self._trace.get_current_span()
        if parent.get_span_context().is_valid and not parent.is_recording():
            return  # the whole trace is dropped by the sampler
        now = self._clock.time()
        span = self._tracer.start_span(
            name,
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            # The span is created after the statement has ended, with its start time, so that a statement that is
            # not recorded costs no span.
            start_time=int((now - seconds) * 1e9),
        )
        if "error.type" in attributes:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(int(now * 1e9))


@dataclass(slots=True)
class _OpenTelemetrySpan:
    """The span of one request, if it is recorded, and the labels of its metric."""

    span: Span | None
    trace_id: str
    span_id: str
    scheme: str
    duration: Histogram | None

    def end(self, fields: Mapping[str, Any], /) -> None:
        """Record the end of the request."""
        outcome, method = outcome_of(fields), fields["method"]
        if self.duration is not None:
            labels = {"http.request.method": method_of(method), "url.scheme": self.scheme, **outcome}
            self.duration.record(fields["duration_ms"] / 1000, labels)
        span = self.span
        if span is None:
            return
        from opentelemetry.trace import StatusCode

        span.set_attributes({**outcome, **end_attributes(fields)})
        # The route is known only now, and a name with an id in it would be different for every request.
        span.update_name(span_name(method, fields.get("route")))
        if "error.type" in outcome:
            span.set_status(StatusCode.ERROR)
        span.end()


class SpanFilter(logging.Filter):
    """Filter that adds the ids of the current span to log records, if it is not the span of the request.

    Add it to handlers: ``for handler in logging.getLogger().handlers: handler.addFilter(SpanFilter())``. Log
    records of a request have its ids without this filter.

    Raises:
        MissingDependencyError: the API of OpenTelemetry is not installed.
    """

    def __init__(self) -> None:
        with optional("opentelemetry", extra="opentelemetry"):
            from opentelemetry import trace
        super().__init__()
        self._current = trace.get_current_span

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; every record passes."""
        ids = self._current().get_span_context()
        if ids.is_valid:
            span_id, fields = f"{ids.span_id:016x}", fields_var.get()
            if fields.get("span_id") != span_id:
                trace_id = f"{ids.trace_id:032x}"
                own = {**fields, "trace_id": trace_id, "span_id": span_id}
                record.__dict__.setdefault(CONTEXT_ATTRIBUTE, MappingProxyType(own))
        return True


def trace_headers() -> dict[str, str]:
    """Return header fields that continue the current trace in another service: ``traceparent``, ``tracestate``.

    Send them only to services of your own.

    Raises:
        MissingDependencyError: the API of OpenTelemetry is not installed.
    """
    with optional("opentelemetry", extra="opentelemetry"):
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    fields: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(fields)
    return fields


def _parent(traceparent: str, tracestate: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    fields = {"traceparent": traceparent}
    if tracestate:
        fields["tracestate"] = tracestate
    # Into an empty context: the current context does not belong to the caller.
    return TraceContextTextMapPropagator().extract(fields, Context())


def _recording(rule: MetricRule, metric: Metric, histogram: Histogram) -> Callable[[Any], None]:
    def record(event: Any) -> None:
        parts = rule.key(event)
        values = rule.labels(*parts) if isinstance(parts, tuple) else rule.labels(parts)
        if rule.seconds is not None:
            histogram.record(rule.seconds(event), {name: values[name] for name in metric.labels})

    return record


def _name(metric: Metric) -> str:
    """Return the OpenTelemetry name, for example ``mks.rate_limit_near``; it contains no suffix for the unit."""
    return metric.name.removesuffix("_total").removesuffix("_seconds").replace("mks_", "mks.", 1)
