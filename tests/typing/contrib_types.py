"""Never run: what type checkers see of the adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from mks_hardening.contrib.otel_observer import OpenTelemetryObserver, trace_headers
from mks_hardening.contrib.prometheus_observer import PrometheusObserver
from mks_hardening.contrib.sentry_redaction import SentryRedaction
from mks_hardening.contrib.structlog_renderer import StructlogRenderer
from mks_hardening.events import add_observer
from mks_hardening.protocols import RequestTracer
from mks_hardening.wsgi import RequestLoggingMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An application of the standard library's types alone."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [trace_headers().get("traceparent", "").encode()]


tracer: RequestTracer = OpenTelemetryObserver()
RequestLoggingMiddleware(plain, tracer=tracer)
add_observer(OpenTelemetryObserver())
add_observer(PrometheusObserver(request_buckets=[0.1, 0.3]))
structlog.configure(processors=[structlog.contextvars.merge_contextvars, StructlogRenderer(as_bytes=True)])
SentryRedaction()({"message": "x"}, {})

# --- what must not pass

RequestLoggingMiddleware(plain, tracer=PrometheusObserver())  # type: ignore[arg-type]
PrometheusObserver(directory=3)  # type: ignore[arg-type]
