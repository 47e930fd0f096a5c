"""Cost of observers: an event for Prometheus, a request with a tracer that records nothing.

    python benchmarks/observers.py

Minima of interleaved rounds, compared with the cost of prometheus_client's own metrics for the same event, in one
process and in its multiprocess mode, and with the cost of the request record without a tracer.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from figures import keep

from mks_hardening.events import AlertsCounted, BreakerChanged, CacheRead, RateLimitDecided, RequestFinished

EVENTS = [
    RequestFinished("GET", "/articles/<int:id>", 200, 12.3, "ok"),
    CacheRead("mks", "hit"),
    RateLimitDecided("login", True, "backend"),
    AlertsCounted("slack", "delivered", 2),
    BreakerChanged("redis", "closed", "open", "timeout"),
]


def per_call(contenders: dict[str, Callable[[], Any]], *, calls: int, rounds: int = 40) -> dict[str, float]:
    """Return the minimum time of one call in microseconds; all contenders run in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: min(values) for name, values in times.items()}


def show(title: str, figures: dict[str, float], *, goal: str = "") -> None:
    keep(title, figures)
    print(f"\n{title}{f'   (goal: {goal})' if goal else ''}")
    for name, value in figures.items():
        print(f"  {name:52} {value:8.2f} µs")


def prometheus(directory: str) -> None:
    import prometheus_client

    from mks_hardening.contrib.prometheus_observer import PrometheusObserver

    registry = prometheus_client.CollectorRegistry()
    labels = ["method", "route", "status", "outcome"]
    requests = prometheus_client.Counter("requests", "Requests.", labels, registry=registry)
    seconds = prometheus_client.Histogram("seconds", "Seconds.", labels[:2], registry=registry)

    def theirs() -> None:
        event = EVENTS[0]
        requests.labels(event.method, event.route, str(event.status), event.outcome).inc()
        seconds.labels(event.method, event.route).observe(event.duration_ms / 1000)

    ours = PrometheusObserver(directory=directory) if directory else PrometheusObserver(registry=registry)
    contenders: dict[str, Callable[[], Any]] = {
        type(event).__name__: lambda event=event: ours(event) for event in EVENTS
    }
    contenders["RequestFinished, prometheus_client's own metrics"] = theirs
    mode = "many processes, one directory" if directory else "one process"
    show(f"an event for Prometheus, {mode}", per_call(contenders, calls=2_000), goal="≤ 1 µs")


def opentelemetry() -> None:
    from opentelemetry import context, trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
    from mks_hardening.wsgi import RequestLoggingMiddleware

    logging.getLogger("mks_hardening.request").addHandler(logging.NullHandler())
    logging.getLogger("mks_hardening.request").propagate = False

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def asked(wrapped: Any) -> Callable[[], Any]:
        def ask() -> None:
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "10.0.0.1"}
            body = wrapped(environ, lambda *_: None)
            list(body)
            body.close()

        return ask

    def floor() -> None:
        span = tracer.start_span("GET", attributes={"url.path": "/", "url.scheme": "http"})
        context.attach(trace.set_span_in_context(span))
        span.end()

    provider = TracerProvider(sampler=ALWAYS_OFF)
    tracer = provider.get_tracer("bench")
    left_out = OpenTelemetryObserver(tracer_provider=provider)
    figures = per_call(
        {
            "request record alone": asked(RequestLoggingMiddleware(app)),
            "with a tracer, no SDK": asked(RequestLoggingMiddleware(app, tracer=OpenTelemetryObserver())),
            "with a tracer, SDK that samples nothing": asked(RequestLoggingMiddleware(app, tracer=left_out)),
            "that SDK alone: start, attach and end a span": lambda: copy_context().run(floor),
        },
        # Short turns: of long ones none is left alone on a busy machine.
        calls=40,
        rounds=800,
    )
    show("a request", figures)
    alone = figures["request record alone"]
    more = {f"more: {name}": value - alone for name, value in figures.items() if name.startswith("with")}
    more["that SDK alone"] = figures["that SDK alone: start, attach and end a span"]
    show("above the request record", more, goal="≤ 2 µs without a recording span")


def main() -> None:
    if sys.argv[1:2] == ["--directory"]:
        prometheus(sys.argv[2])
        return
    prometheus("")
    with tempfile.TemporaryDirectory() as directory:
        # prometheus_client reads the variable when it is imported.
        variables = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": directory}
        subprocess.run([sys.executable, __file__, "--directory", directory], env=variables, check=True)
    opentelemetry()


if __name__ == "__main__":
    main()
