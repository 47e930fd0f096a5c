"""The span of a request: what a tracer gets, where its ids appear, and what it leaves behind in the task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import pytest

from asgi_server import Server, call, hello, http, run, socket
from mks_hardening.asgi import ProxyTrust, RequestLoggingMiddleware
from mks_hardening.logging import bind, current
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import ORIGIN_KEY

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

ACTIVE: ContextVar[str] = ContextVar("ACTIVE")
BAGGAGE: ContextVar[str] = ContextVar("BAGGAGE", default="none")


class Span:
    """A span that keeps what it is ended with."""

    trace_id, span_id = "f" * 32, "e" * 16

    def __init__(self) -> None:
        self.ended: list[Mapping[str, object]] = []

    def end(self, fields: Mapping[str, object], /) -> None:
        self.ended.append(fields)


class Tracer:
    """A tracer that makes its span the current one, as OpenTelemetry does."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []
        self.spans: list[Span] = []

    def begin(self, environ: Mapping[str, Any], /) -> Span:
        self.environs.append(dict(environ))
        self.spans.append(Span())
        ACTIVE.set("span")
        BAGGAGE.set("of the span")
        return self.spans[-1]


COMMON = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/a", "wsgi.url_scheme": "https"}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (http("/a"), COMMON),
        (http("/a", method="POST"), {**COMMON, "REQUEST_METHOD": "POST"}),
        (http("/a", scheme="http"), {**COMMON, "wsgi.url_scheme": "http"}),
        (http("/m/a", root_path="/m"), {**COMMON, "SCRIPT_NAME": "/m"}),
        (socket("/a"), COMMON),
        (socket("/a", scheme="ws"), {**COMMON, "wsgi.url_scheme": "http"}),
        (
            http("/a", headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"}),
            {**COMMON, "HTTP_TRACEPARENT": TRACEPARENT, "HTTP_TRACESTATE": "vendor=1"},
        ),
        (http("/a", headers={"tracestate": "vendor=1"}), COMMON),  # a state without a parent says nothing
        (http("/a", headers={"traceparent": "nonsense", "tracestate": "vendor=1"}), COMMON),
        (
            http("/a", headers={"traceparent": TRACEPARENT, "tracestate": "a=b"}, client=("192.0.2.9", 1)),
            COMMON,
        ),
        (
            {name: value for name, value in http("/a").items() if name != "scheme"},
            {**COMMON, "wsgi.url_scheme": "http"},
        ),
    ],
    ids=[
        "GET",
        "POST",
        "plain HTTP",
        "mounted",
        "WebSocket",
        "plain WebSocket",
        "trace of a trusted peer",
        "state alone",
        "malformed trace",
        "trace of another peer",
        "no scheme",
    ],
)
def test_a_tracer_gets_method_scheme_path_and_an_accepted_trace(
    scope: dict[str, Any], expected: dict[str, Any]
) -> None:
    tracer = Tracer()
    call(RequestLoggingMiddleware(hello, tracer=tracer, trust=ProxyTrust(["192.0.2.7"])), scope)
    (environ,) = tracer.environs
    assert environ.pop(ORIGIN_KEY).peer_trusted is (scope["client"][0] == "192.0.2.7")
    assert environ == expected


def test_the_ids_of_the_span_are_in_all_records_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Mapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current())
        await hello(scope, receive, send)

    tracer = Tracer()
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        call(RequestLoggingMiddleware(app, tracer=tracer, clock=FrozenClock()), http())
    (record,) = caplog.records
    assert (seen[0]["trace_id"], seen[0]["span_id"]) == (Span.trace_id, Span.span_id)
    assert (record.trace_id, record.request_id) == (Span.trace_id, seen[0]["request_id"])  # type: ignore[attr-defined]  # fields of the record
    ((ended,),) = [span.ended for span in tracer.spans]
    assert (ended["status"], ended["outcome"], ended["trace_id"]) == (200, "ok", Span.trace_id)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", [None, "outer"])
def test_what_the_tracer_has_made_current_ends_with_the_request(before: str | None, fails: bool) -> None:
    """A server may serve several requests of a connection in one task."""
    inside: list[tuple[str | None, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append((ACTIVE.get(None), BAGGAGE.get()))
        await hello(scope, receive, send)
        if fails:
            raise KeyError("late")

    async def connection() -> None:
        if before is not None:
            ACTIVE.set(before)
            BAGGAGE.set(before)
        for _ in range(2):
            server = Server()
            if fails:
                with pytest.raises(KeyError):
                    await server.serve(wrapped, http())
            else:
                await server.serve(wrapped, http())
            assert (ACTIVE.get(None), BAGGAGE.get()) == (before, before or "none")

    wrapped = RequestLoggingMiddleware(app, tracer=Tracer())
    run(connection())
    assert inside == [("span", "of the span")] * 2


def test_a_path_that_is_not_logged_has_no_span() -> None:
    tracer = Tracer()
    call(RequestLoggingMiddleware(hello, tracer=tracer, skip_paths=["/livez"]), http("/livez"))
    assert tracer.spans == []


@pytest.mark.parametrize("tracer", [None, Tracer()])
def test_fields_that_were_bound_outside_stay_bound_inside(tracer: Tracer | None) -> None:
    seen: list[Mapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current())
        bind(article=7)
        await hello(scope, receive, send)

    async def connection() -> None:
        bind(tenant="a")
        await Server().serve(wrapped, http())
        assert current() == {"tenant": "a"}

    wrapped = RequestLoggingMiddleware(app, tracer=tracer)
    run(connection())
    assert seen[0]["tenant"] == "a"
    assert seen[0]["request_id"]
