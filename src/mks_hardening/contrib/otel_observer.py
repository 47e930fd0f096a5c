"""Traces and metrics for OpenTelemetry: spans of requests and statements, events of the cache, all other counts.

    from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
    from mks_hardening.events import add_observer

    telemetry = OpenTelemetryObserver()
    add_observer(telemetry)  # events of the cache, and metrics
    app = harden_wsgi(app, settings, tracer=telemetry)  # spans of requests
    telemetry.watch_engine(engine)  # spans of statements

What becomes of them is the business of the SDK that the application configures; without one, nothing is recorded.
Names are those of the semantic conventions: HTTP and database spans and metrics as of 1.33 (stable).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import offers
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.record_attributes import CONTEXT_ATTRIBUTE
from mks_hardening.contrib._metrics.counters import MetricCounters
from mks_hardening.contrib._metrics.definitions import METRICS, REQUEST_BUCKETS, RULES, Metric, MetricRule
from mks_hardening.contrib._metrics.storage import MemoryMetricStorage
from mks_hardening.contrib._traces.request_span import (
    Attributes,
    at_the_begin,
    at_the_end,
    method_of,
    outcome_of,
    span_name,
)
from mks_hardening.contrib._traces.statement_span import StatementSpans, labels_of
from mks_hardening.events import CacheRead, RequestFinished

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
    from opentelemetry.trace import Span, Tracer, TracerProvider
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.db.watch._instrument import Execution
    from mks_hardening.protocols import Clock

__all__ = ["OpenTelemetryObserver", "SpanFilter", "trace_headers"]

_SCOPE: Final = "mks_hardening"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.33.0"
# The buckets that the conventions advise for this metric.
_QUERY_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks for an SDK, while there is none."""
# Requests have a metric of the conventions, with these labels and more.
_RULES: Final = tuple(rule for rule in RULES if rule.event is not RequestFinished)


class OpenTelemetryObserver:
    """Spans of requests (as ``tracer``) and of statements (``watch_engine``), and metrics of all events.

    A request that brings a ``traceparent`` from a trusted peer continues that trace. Its ids stand in the request
    record and in all log lines of the request. No attribute holds a secret: paths and queries are those of the
    record, statements have their values taken out, and of exceptions the class alone is told.

    Args:
        tracer_provider: the application's; if ``None`` the global one, from at most a second after it is set.
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
        self._asleep = tracer_provider is None and meter_provider is None
        self._look_again = 0.0
        self._trace = trace
        self._metrics = metrics
        self._attach = context.attach
        self._requests = self._meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=REQUEST_BUCKETS,
        )
        self._statements = self._meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_QUERY_SECONDS,
        )
        self._timed = {
            rule.event: _recording(
                rule,
                rule.timed,
                self._meter.create_histogram(
                    _name(rule.timed),
                    "s",
                    rule.timed.help,
                    explicit_bucket_boundaries_advisory=rule.timed.buckets,
                ),
            )
            for rule in _RULES
            if rule.timed is not None
        }
        self._watched: dict[object, Callable[[Execution], None]] = {}
        self.renew()
        self._show_counts()
        renew_in_child(self)

    def renew(self) -> None:
        """In a forked child: count from zero."""
        self._sheet = MemoryMetricStorage()
        self._count = MetricCounters(self._sheet, most_label_sets=500, buckets={}, rules=_RULES).count

    # --- events

    def __call__(self, event: object, /) -> None:
        """Count one event; what a cache answered is an event of the span at hand, too."""
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
        """One instrument for each metric of the table, asked when the SDK collects."""
        # Asked and not pushed: counting stays one addition, and nothing is done while nobody collects.
        for metric in METRICS:
            if metric.kind == "counter":
                self._meter.create_observable_counter(_name(metric), [self._reader(metric)], "", metric.help)
            elif metric.kind in ("gauge", "level"):
                self._meter.create_observable_gauge(_name(metric), [self._reader(metric)], "", metric.help)

    def _reader(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_options: CallbackOptions) -> Iterable[Observation]:
            for row in self._sheet.rows():
                if row.metric.name == metric.name:
                    labels = dict(zip(metric.labels, row.labels, strict=True))
                    yield self._metrics.Observation(row.numbers[0], labels)

        return read

    # --- requests

    def begin(self, environ: Mapping[str, Any], /) -> _RequestSpan | None:
        """Begin the span of a request; called by the wrapper that records it."""
        if self._asleep and not self._awakes():
            return None
        known = self._trace.get_current_span().get_span_context()
        if known.is_valid:
            # Another instrumentation has begun one: a second span of the same request would count it twice.
            return _RequestSpan(None, f"{known.trace_id:032x}", f"{known.span_id:016x}", "", None)
        attributes = at_the_begin(environ)
        traceparent = environ.get("HTTP_TRACEPARENT")
        parent = None if traceparent is None else _parent(traceparent, environ.get("HTTP_TRACESTATE"))
        span = self._tracer.start_span(
            span_name(environ.get("REQUEST_METHOD", ""), None),
            parent,
            self._trace.SpanKind.SERVER,
            attributes,
        )
        self._attach(self._trace.set_span_in_context(span))
        ids, scheme = span.get_span_context(), str(attributes["url.scheme"])
        if not ids.is_valid:
            return _RequestSpan(None, "", "", scheme, self._requests)
        # One that the sampler leaves out has ids for the log, and nothing to be told at its end.
        kept = span if span.is_recording() else None
        return _RequestSpan(kept, f"{ids.trace_id:032x}", f"{ids.span_id:016x}", scheme, self._requests)

    def _awakes(self) -> bool:
        """Whether an SDK has been put in place: it may be at any time, and is never taken away."""
        now = self._clock.monotonic()
        if now < self._look_again:  # to look costs more than all else
            return False
        self._look_again = now + _LOOK_EVERY
        self._asleep = (
            type(self._trace.get_tracer_provider()) is self._trace.ProxyTracerProvider
            and type(self._metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
        )
        return not self._asleep

    # --- statements

    def watch_engine(self, engine: Engine | AsyncEngine) -> None:
        """Make a span of every statement of an engine; harmless when called twice.

        Raises:
            ConfigurationError: not an engine.
        """
        from mks_hardening.db.watch._instrument import attach

        if engine not in self._watched:
            self._watched[engine] = listener = StatementSpans(engine, self._statement).finished
            attach(engine, listener, clock=self._clock)

    def unwatch_engine(self, engine: Engine | AsyncEngine) -> None:
        """Leave the engine as it was; harmless when it is not watched."""
        from mks_hardening.db.watch._instrument import detach

        listener = self._watched.pop(engine, None)
        if listener is not None:
            detach(engine, listener)

    def _statement(self, name: str, attributes: Attributes, seconds: float) -> None:
        """Record a statement that has just ended."""
        if self._asleep and not self._awakes():
            return
        self._statements.record(seconds, labels_of(attributes))
        parent = self._trace.get_current_span()
        if parent.get_span_context().is_valid and not parent.is_recording():
            return  # the whole trace is left out
        now = self._clock.time()
        span = self._tracer.start_span(
            name,
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            # The statement has ended already: its span is made backwards, so that a statement nobody records
            # costs none.
            start_time=int((now - seconds) * 1e9),
        )
        if "error.type" in attributes:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(int(now * 1e9))


class _RequestSpan:
    """One request: its span, where it is recorded, and what goes into the metric."""

    __slots__ = ("_duration", "_scheme", "_span", "span_id", "trace_id")

    def __init__(
        self, span: Span | None, trace_id: str, span_id: str, scheme: str, duration: Histogram | None
    ) -> None:
        self._span = span
        self.trace_id: str = trace_id
        self.span_id: str = span_id
        self._scheme = scheme
        self._duration = duration

    def end(self, fields: Mapping[str, Any], /) -> None:
        """The request is over."""
        outcome, method = outcome_of(fields), fields["method"]
        if self._duration is not None:
            labels = {"http.request.method": method_of(method), "url.scheme": self._scheme, **outcome}
            self._duration.record(fields["duration_ms"] / 1000, labels)
        span = self._span
        if span is None:
            return
        from opentelemetry.trace import StatusCode

        span.set_attributes({**outcome, **at_the_end(fields)})
        # Only now is the route known, and a name with an id in it would be a name for every request.
        span.update_name(span_name(method, fields.get("route")))
        if "error.type" in outcome:
            span.set_status(StatusCode.ERROR)
        span.end()


class SpanFilter(logging.Filter):
    """Gives log records the ids of the span at hand, where that is not the span of the request.

    Put it on handlers: ``for handler in logging.getLogger().handlers: handler.addFilter(SpanFilter())``. Records of
    a request have its ids without this filter.

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
    """Header fields that continue the trace at hand in a call to another service: ``traceparent``, ``tracestate``.

    Send them to services of your own alone.

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
    # Into an empty context: whatever else is at hand belongs to no caller.
    return TraceContextTextMapPropagator().extract(fields, Context())


def _recording(rule: MetricRule, metric: Metric, histogram: Histogram) -> Callable[[Any], None]:
    def record(event: Any) -> None:
        parts = rule.key(event)
        values = rule.labels(*parts) if isinstance(parts, tuple) else rule.labels(parts)
        if rule.seconds is not None:
            histogram.record(rule.seconds(event), {name: values[name] for name in metric.labels})

    return record


def _name(metric: Metric) -> str:
    """``mks_rate_limit_near_total`` is ``mks.rate_limit_near`` here; units are no part of a name."""
    return metric.name.removesuffix("_total").removesuffix("_seconds").replace("mks_", "mks.", 1)
