"""Traces and metrics for OpenTelemetry: what spans say, whose traces they continue, and what they never tell."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from mks_hardening import asgi
from mks_hardening._core import hooks
from mks_hardening.contrib.otel_observer import OpenTelemetryObserver, SpanFilter, trace_headers
from mks_hardening.events import (
    BreakerChanged,
    CacheRead,
    RequestFinished,
    RequestRefused,
    TaskChanged,
    add_observer,
    remove_observer,
)
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging import JsonFormatter, bind
from mks_hardening.testing import call_asgi, call_wsgi
from mks_hardening.wsgi import ROUTE_KEY, ProxyTrust, RequestLoggingMiddleware, TrustedProxyMiddleware
from testbed.run_python import run_python

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
App = Callable[..., Any]


class Telemetry:
    """An SDK that keeps everything in memory, and our observer on it."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Attributes and value of each point of a metric; of a histogram the number of values."""
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), getattr(point, "value", getattr(point, "count", None)))
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.close()


@pytest.fixture
def unsampled() -> Iterator[Telemetry]:
    made = Telemetry(ALWAYS_OFF)
    yield made
    made.close()


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """Every log line of the test as data; filled when it is read."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())

    class Lines(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter([json.loads(line) for line in stream.getvalue().splitlines()])

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield Lines()
    root.removeHandler(handler)
    root.setLevel(before)


def recorded(telemetry: Telemetry, app: App, **options: Any) -> App:
    return RequestLoggingMiddleware(app, tracer=telemetry.observer, **options)


def answering(status: str = "200 OK", *, route: str = "", error: Exception | None = None) -> App:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        logging.getLogger("app").info("at work")
        if route:
            environ[ROUTE_KEY] = route
        if error is not None:
            raise error
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    return app


# --- requests

COMMON = {"http.request.method": "GET", "url.scheme": "http", "url.path": "/articles/7"}


@pytest.mark.parametrize(
    ("app", "method", "name", "attributes", "failed"),
    [
        (
            answering(route="/articles/<id>"),
            "GET",
            "GET /articles/<id>",
            {
                **COMMON,
                "http.route": "/articles/<id>",
                "http.response.status_code": 200,
                "mks.request.outcome": "ok",
            },
            False,
        ),
        (answering("404 Not Found"), "GET", "GET", {**COMMON, "http.response.status_code": 404}, False),
        (
            answering("503 Service Unavailable"),
            "GET",
            "GET",
            {**COMMON, "http.response.status_code": 503, "error.type": "503"},
            True,
        ),
        (
            answering(error=ValueError("the password is hunter2")),
            "GET",
            "GET",
            {
                **COMMON,
                "http.response.status_code": 500,
                "error.type": "ValueError",
                "mks.request.outcome": "error",
            },
            True,
        ),
        (
            answering(route="/brew"),
            "BREW",
            "HTTP /brew",
            {**COMMON, "http.request.method": "_OTHER", "http.request.method_original": "BREW"},
            False,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
def test_what_the_span_of_a_request_says(
    telemetry: Telemetry, app: App, method: str, name: str, attributes: dict[str, Any], *, failed: bool
) -> None:
    call_wsgi(recorded(telemetry, app), "/articles/7", method=method, query="page=2&password=hunter2")
    (span,) = telemetry.spans()
    result = dict(span.attributes or {})
    assert (span.name, span.kind) == (name, SpanKind.SERVER)
    assert {**result, **attributes} == result
    assert result["client.address"] == "127.0.0.1"
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert "hunter2" not in span.to_json()
    assert "page=2" in str(result["url.query"])


def test_the_metric_of_requests_has_the_labels_of_the_conventions(telemetry: Telemetry) -> None:
    for app in (answering(route="/articles/<id>"), answering("503 Service Unavailable")):
        call_wsgi(recorded(telemetry, app), "/articles/7")
    common = {"http.request.method": "GET", "url.scheme": "http"}
    assert telemetry.points("http.server.request.duration") == [
        ({**common, "http.route": "/articles/<id>", "http.response.status_code": 200}, 1),
        ({**common, "http.response.status_code": 503, "error.type": "503"}, 1),
    ]


def test_log_lines_and_the_record_carry_the_ids_of_the_span(
    telemetry: Telemetry, lines: list[dict[str, Any]]
) -> None:
    call_wsgi(recorded(telemetry, answering()), "/")
    (span,) = telemetry.spans()
    ids = (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")
    assert [(line["logger"], line["trace_id"], line["span_id"]) for line in lines] == [
        ("app", *ids),
        ("mks_hardening.request", *ids),
    ]


@pytest.mark.parametrize(
    ("trust", "continued"), [(None, True), (ProxyTrust(["127.0.0.1"]), True), (ProxyTrust([]), False)]
)
def test_the_trace_of_a_trusted_peer_alone_is_continued(
    telemetry: Telemetry, trust: ProxyTrust | None, *, continued: bool
) -> None:
    app = recorded(telemetry, answering())
    if trust is not None:
        app = TrustedProxyMiddleware(app, trust=trust)
    call_wsgi(app, headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    (span,) = telemetry.spans()
    assert (f"{span.context.trace_id:032x}" == TRACE) is continued
    if continued:
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == PARENT
        assert span.context.trace_state.get("vendor") == "1"
    else:
        assert span.parent is None


@pytest.mark.parametrize("header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_bad_traceparent_begins_a_new_trace(telemetry: Telemetry, header: str) -> None:
    call_wsgi(recorded(telemetry, answering()), headers={"traceparent": header})
    assert telemetry.spans()[0].parent is None


def test_the_trace_is_handed_on_by_header_fields(telemetry: Telemetry) -> None:
    sent: list[dict[str, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sent.append(trace_headers())
        return answering()(environ, start_response)  # type: ignore[no-any-return]  # an application of ours

    call_wsgi(recorded(telemetry, app), headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    (span,) = telemetry.spans()
    assert sent == [{"traceparent": f"00-{TRACE}-{span.context.span_id:016x}-01", "tracestate": "vendor=1"}]
    assert trace_headers() == {}


def test_bodies_that_are_interleaved_keep_their_spans_apart(
    telemetry: Telemetry, lines: list[dict[str, Any]]
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for step in range(2):
            logging.getLogger("app").info("%s", environ["PATH_INFO"], extra={"step": step})
            yield b"x"

    wrapped = recorded(telemetry, app)
    bodies = [
        iter(wrapped({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *_: lambda _: None))
        for path in ("/a", "/b")
    ]
    for _ in range(2):
        for body in bodies:
            next(body)
    for body in bodies:
        assert list(body) == []
        body.close()  # type: ignore[attr-defined]  # the wrapper's own iterator
    spans = {
        (span.attributes or {})["url.path"]: f"{span.context.span_id:016x}" for span in telemetry.spans()
    }
    heads = {(line["message"], line["span_id"]) for line in lines if line["logger"] == "app"}
    assert heads == set(spans.items())
    assert len(spans) == 2


def test_what_is_not_recorded_is_not_traced(telemetry: Telemetry) -> None:
    call_wsgi(recorded(telemetry, answering(), skip_paths=["/livez"]), "/livez")
    assert telemetry.spans() == []


def test_another_instrumentation_around_is_joined_and_not_doubled(
    telemetry: Telemetry, lines: list[dict[str, Any]]
) -> None:
    tracer = telemetry.tracers.get_tracer("other")
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as outer:
        call_wsgi(recorded(telemetry, answering()))
    assert [span.name for span in telemetry.spans()] == ["GET"]
    assert {line["span_id"] for line in lines} == {f"{outer.get_span_context().span_id:016x}"}
    assert telemetry.points("http.server.request.duration") == []


def test_a_trace_that_is_left_out_still_ties_log_lines_together(
    unsampled: Telemetry, lines: list[dict[str, Any]]
) -> None:
    engine = create_engine("sqlite://")
    unsampled.observer.watch_engine(engine)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
        assert trace_headers()["traceparent"].endswith("-00")
        return answering()(environ, start_response)  # type: ignore[no-any-return]  # an application of ours

    call_wsgi(recorded(unsampled, app))
    engine.dispose()
    assert unsampled.spans() == []
    assert len({(line["trace_id"], line["span_id"]) for line in lines}) == 1
    assert len(unsampled.points("http.server.request.duration")) == 1
    assert len(unsampled.points("db.client.operation.duration")) == 1


def test_a_tracer_that_fails_breaks_no_request(lines: list[dict[str, Any]]) -> None:
    class Broken:
        trace_id = span_id = "x"

        def begin(self, _: object) -> Broken:
            if self is first:
                raise RuntimeError("no")
            return self

        def end(self, _: object) -> None:
            raise RuntimeError("no")

    first = Broken()
    for tracer in (first, Broken()):
        assert call_wsgi(RequestLoggingMiddleware(answering(), tracer=tracer)).status == 200
    assert [line["logger"] for line in lines].count("mks_hardening.request") == 2


# --- statements


def test_what_the_span_of_a_statement_says(telemetry: Telemetry) -> None:
    engine = create_engine("sqlite://")
    telemetry.observer.watch_engine(engine)
    telemetry.observer.watch_engine(engine)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with engine.begin() as connection:
            connection.execute(text("create table articles (id integer primary key, title text)"))
            connection.execute(
                text("insert into articles (title) values (:title)"), [{"title": "a"}, {"title": "b"}]
            )
            connection.execute(text("select title from articles where title = 'hunter2'")).all()
        return answering()(environ, start_response)  # type: ignore[no-any-return]  # an application of ours

    call_wsgi(recorded(telemetry, app))
    telemetry.observer.unwatch_engine(engine)
    with engine.connect() as connection:
        connection.execute(text("select 1")).all()
    engine.dispose()
    *statements, request = telemetry.spans()
    assert [(span.name, span.kind) for span in statements] == [
        ("CREATE articles", SpanKind.CLIENT),
        ("INSERT articles", SpanKind.CLIENT),
        ("SELECT articles", SpanKind.CLIENT),
    ]
    assert {span.parent.span_id if span.parent else 0 for span in statements} == {request.context.span_id}
    assert dict(statements[2].attributes or {}) == {
        "db.system.name": "sqlite",
        "db.query.text": "select title from articles where title = ?",
        "db.query.summary": "SELECT articles",
    }
    assert (statements[1].attributes or {})["db.operation.batch.size"] == 2
    assert all((span.start_time or 0) <= (span.end_time or 0) for span in statements)
    assert "hunter2" not in "".join(span.to_json() for span in telemetry.spans())
    assert {
        attributes["db.query.summary"] for attributes, _ in telemetry.points("db.client.operation.duration")
    } == {
        "CREATE articles",
        "INSERT articles",
        "SELECT articles",
    }


def test_a_statement_that_fails_says_which_class_of_error(telemetry: Telemetry) -> None:
    engine = create_engine("sqlite://")
    telemetry.observer.watch_engine(engine)
    with engine.connect() as connection, pytest.raises(Exception, match="no such table"):
        connection.execute(text("select * from nowhere where name = 'hunter2'"))
    engine.dispose()
    (span,) = telemetry.spans()
    assert (span.attributes or {})["error.type"] == "OperationalError"
    assert span.status.status_code is StatusCode.ERROR
    assert not span.status.description
    assert "hunter2" not in span.to_json()


def test_only_engines_are_watched(telemetry: Telemetry) -> None:
    with pytest.raises(ConfigurationError):
        telemetry.observer.watch_engine("sqlite://")  # type: ignore[arg-type]  # on purpose


# --- events


def test_what_a_cache_answers_is_an_event_of_the_span_at_hand(telemetry: Telemetry) -> None:
    add_observer(telemetry.observer)
    try:
        with telemetry.tracers.get_tracer("app").start_as_current_span("work"):
            hooks.emit(CacheRead("mks", "hit"))
            hooks.emit(CacheRead("mks", "bypass", "unkeepable"))
        hooks.emit(CacheRead("mks", "hit"))
    finally:
        remove_observer(telemetry.observer)
    (span,) = telemetry.spans()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        (
            "mks.cache.read",
            {"mks.cache.namespace": "mks", "mks.cache.outcome": outcome, "mks.cache.reason": reason},
        )
        for outcome, reason in (("hit", ""), ("bypass", "unkeepable"))
    ]
    assert telemetry.points("mks.cache_reads") == [
        ({"namespace": "mks", "outcome": "hit", "reason": ""}, 2),
        ({"namespace": "mks", "outcome": "bypass", "reason": "unkeepable"}, 1),
    ]


def test_other_events_are_metrics(telemetry: Telemetry) -> None:
    for event in (
        RequestRefused("csrf", "origin", "203.0.113.9"),
        BreakerChanged("redis", "closed", "open", "timeout"),
        TaskChanged("reports", "done", 4.0),
        RequestFinished("GET", "/", 200, 1.0, "ok"),  # has a metric of the conventions
    ):
        telemetry.observer(event)
    assert telemetry.points("mks.requests_refused") == [({"wrapper": "csrf", "reason": "origin"}, 1)]
    assert telemetry.points("mks.breakers_not_closed") == [({"backend": "redis"}, 1)]
    assert telemetry.points("mks.task_runs") == [({"task": "reports", "outcome": "done"}, 1)]
    assert telemetry.points("mks.task_duration") == [({"task": "reports"}, 1)]
    assert telemetry.points("mks.requests") == []


# --- log records of spans of one's own


def test_records_inside_a_span_of_ones_own_have_its_ids(telemetry: Telemetry) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(SpanFilter())
    logger = logging.getLogger("spans")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        with telemetry.tracers.get_tracer("app").start_as_current_span("work") as span:
            logger.info("inside")
        logger.info("outside")
    finally:
        logger.removeHandler(handler)
    inside, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert inside["span_id"] == f"{span.get_span_context().span_id:016x}"
    assert inside["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert "span_id" not in outside


def test_the_filter_keeps_what_is_bound(telemetry: Telemetry, lines: list[dict[str, Any]]) -> None:
    (handler,) = [h for h in logging.getLogger().handlers if isinstance(h.formatter, JsonFormatter)]
    handler.addFilter(SpanFilter())

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        bind(user_id="tanaka")
        with telemetry.tracers.get_tracer("app").start_as_current_span("work"):
            return answering()(environ, start_response)  # type: ignore[no-any-return]  # an application of ours

    call_wsgi(recorded(telemetry, app))
    work, request = telemetry.spans()
    line, record = lines
    assert line["span_id"] == f"{work.context.span_id:016x}"
    assert line["user_id"] == "tanaka"
    assert line["request_id"] == record["request_id"]
    assert record["span_id"] == f"{request.context.span_id:016x}"


# --- with nothing configured

WITHOUT_SDK = """
import logging
from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import RequestLoggingMiddleware
from opentelemetry import context, metrics, trace

clock = FrozenClock()
observer = OpenTelemetryObserver(clock=clock)
seen = []

def app(environ, start_response):
    seen.append(trace.get_current_span().get_span_context().is_valid)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]

wrapped = RequestLoggingMiddleware(app, tracer=observer)
call_wsgi(wrapped)
assert trace._TRACER_PROVIDER is None  # no export is configured by us

from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
clock.advance(1)
call_wsgi(wrapped)
print(seen)
"""


def test_without_an_sdk_nothing_is_done_and_one_that_comes_later_is_used() -> None:
    assert run_python(WITHOUT_SDK).stdout.strip() == "[False, True]"


# --- ASGI


def test_requests_of_one_task_have_spans_of_their_own(telemetry: Telemetry) -> None:
    """As under WSGI; the second request of a task is not inside the span of the first."""
    inside: list[bool] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        inside.append(get_current_span().get_span_context().is_valid)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    trusted = asgi.TrustedProxyMiddleware(
        asgi.RequestLoggingMiddleware(app, tracer=telemetry.observer), trust=ProxyTrust(["127.0.0.1"])
    )

    async def two(scope: Any, receive: Any, send: Any) -> None:
        async def nowhere(_message: Any) -> None:
            pass

        await trusted({**scope, "path": "/first"}, receive, nowhere)
        await trusted(scope, receive, send)
        inside.append(get_current_span().get_span_context().is_valid)

    headers = {"Host": "localhost", "traceparent": TRACEPARENT}
    call_asgi(two, "/articles/7", headers=headers, scheme="https", scope={"root_path": "/app"})
    assert inside == [True, True, False]
    first, second = telemetry.spans()
    assert [span.attributes["url.path"] for span in (first, second) if span.attributes] == [
        "/app/first",
        "/app/articles/7",
    ]
    for span in (first, second):
        assert (span.name, span.kind) == ("GET", SpanKind.SERVER)
        assert span.parent is not None
        assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
        assert span.attributes is not None
        assert span.attributes["http.request.method"] == "GET"
        assert span.attributes["url.scheme"] == "https"


def test_a_socket_is_one_span(telemetry: Telemetry) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    call_asgi(asgi.RequestLoggingMiddleware(app, tracer=telemetry.observer), websocket=[], scheme="https")
    [span] = telemetry.spans()
    assert span.attributes is not None
    assert (span.name, span.attributes["url.scheme"]) == ("GET", "https")
    assert span.attributes["http.response.status_code"] == 101
