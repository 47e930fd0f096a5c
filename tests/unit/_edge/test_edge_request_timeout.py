"""Deadlines: cancelled by the ASGI middleware, observed by the application under WSGI."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import pytest
from fastapi import FastAPI, Request
from flask import Flask, Response, request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse

from mks_hardening import asgi, wsgi
from mks_hardening.exceptions import ConfigurationError, RequestTimeoutError
from mks_hardening.testing import FrozenClock, call_asgi, call_wsgi
from mks_hardening.wsgi import RequestTimeoutRule, request_deadline

SOON = 0.02
LATE = 30.0
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
EVENTS = {**START, "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")]}
MORE = {"type": "http.response.body", "body": b"a", "more_body": True}
END = {"type": "http.response.body", "body": b"z"}
HTTP = {"type": "http", "method": "GET", "path": "/", "headers": []}

Application = Callable[[Any, Any, Any], Any]


def play(app: Application, scope: Any = None, **options: Any) -> list[Any]:
    """The messages that reach the server."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    options = {"seconds": SOON, **options}
    asyncio.run(asgi.RequestTimeoutMiddleware(app, **options)(scope or dict(HTTP), receive, send))
    return sent


def sending(*steps: Any) -> Application:
    """An application that sends messages, and sleeps where it finds a number."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for step in steps:
            await (asyncio.sleep(step) if isinstance(step, float) else send(step))

    return app


def test_an_application_in_time_is_not_touched() -> None:
    assert play(sending(START, END), seconds=LATE) == [START, END]
    assert play(sending(LATE / 1e6, START, MORE, END), seconds=LATE) == [START, MORE, END]


def test_a_late_application_is_cancelled_and_the_client_gets_504() -> None:
    ends: list[str] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        try:
            await asyncio.sleep(LATE)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        finally:
            ends.append("cleaned up")

    start, body = play(app)
    assert ends == ["cancelled", "cleaned up"]
    assert start["status"] == 504
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
    assert json.loads(body["body"])["limit"] == SOON


def test_a_response_that_has_begun_is_not_cut_off() -> None:
    assert play(sending(START, SOON * 3, MORE, END)) == [START, MORE, END]


def test_early_hints_are_no_response() -> None:
    hint = {"type": "http.response.early_hint", "links": []}
    sent = play(sending(hint, LATE))
    assert (sent[0], sent[1]["status"]) == (hint, 504)


@pytest.mark.parametrize(("head", "is_cut"), [(START, True), (EVENTS, False)])
def test_a_whole_response_may_have_a_deadline_but_not_events(head: Any, is_cut: bool) -> None:
    options: Any = {"seconds": None, "rules": [RequestTimeoutRule("/", SOON, whole_response=True)]}
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(head)
        await send(MORE)
        sent.append(1)
        await asyncio.sleep(SOON * 4)
        sent.append(2)
        await send(END)

    if is_cut:
        with pytest.raises(RequestTimeoutError) as raised:  # the server must break the connection off
            play(app, **options)
        assert raised.value.seconds == SOON
        assert sent == [1]
    else:
        assert play(app, **options) == [head, MORE, END]


def test_an_iterator_of_header_fields_is_read_once() -> None:
    sent = play(sending({**START, "headers": iter(EVENTS["headers"])}, END), seconds=LATE)
    assert list(sent[0]["headers"]) == EVENTS["headers"]


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "other"])
def test_other_connections_have_no_deadline(kind: str) -> None:
    done: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(SOON * 3)
        done.append(scope)

    scope = {"type": kind, "path": "/"}
    play(app, scope)
    assert done == [scope]
    assert done[0] is scope


def test_paths_have_deadlines_of_their_own() -> None:
    rules = [RequestTimeoutRule("/reports/", LATE), RequestTimeoutRule(["/export"], None)]
    slow = sending(SOON * 3, START, END)
    statuses = {
        path: play(slow, {**HTTP, "path": path}, rules=rules)[0]["status"]
        for path in ("/", "/reports/7", "/x/../export", "/other")
    }
    assert statuses == {"/": 504, "/reports/7": 200, "/x/../export": 504, "/other": 504}


def test_a_cancellation_by_the_server_is_passed_on() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> bool:
        app = asgi.RequestTimeoutMiddleware(sending(LATE), seconds=LATE)
        task = asyncio.create_task(app(dict(HTTP), send, send))  # type: ignore[arg-type]  # never called
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return task.cancelled()
        return False

    assert asyncio.run(run())
    assert sent == []


def test_nothing_is_left_of_a_cancellation() -> None:
    async def run() -> tuple[int, int]:
        async def send(_message: Any) -> None:
            await asyncio.sleep(0)

        await asgi.RequestTimeoutMiddleware(sending(LATE), seconds=SOON)(dict(HTTP), send, send)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling(), 1

    assert asyncio.run(run()) == (0, 1)


@pytest.mark.parametrize("afterwards", ["returns", "responds", "raises"])
def test_an_application_that_catches_its_cancellation_cannot_respond_late(afterwards: str) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(LATE)
        except asyncio.CancelledError:
            if afterwards == "raises":
                raise ValueError from None
            if afterwards == "responds":
                await send(START)
                await send(END)

    sent = play(app)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 504


def test_errors_of_the_application_are_its_own() -> None:
    async def times_out(_scope: Any, _receive: Any, _send: Any) -> None:
        raise TimeoutError("a database")

    with pytest.raises(TimeoutError, match="a database"):
        play(times_out, seconds=LATE)

    async def breaks(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        raise KeyError("x")

    with pytest.raises(KeyError):
        play(breaks, seconds=LATE)


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.get("/async")
    async def wait() -> str:
        await asyncio.sleep(LATE)
        return "late"

    @app.get("/thread")
    def wait_in_thread() -> str:
        released.wait(LATE)
        return "late"

    @app.get("/noticed")
    def noticed(request: Request) -> str:
        deadline = request_deadline(request.scope)
        assert deadline is not None
        clock.advance(LATE)
        return str(deadline.timeout())

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"a"
            await asyncio.sleep(SOON * 3)
            yield b"b"

        return StreamingResponse(chunks())

    @app.get("/quick")
    async def quick() -> str:
        return "quick"

    released = threading.Event()
    clock = FrozenClock()
    app.state.released, app.state.clock = released, clock
    return app


@pytest.fixture
def starlette_leaves_streams_open() -> Iterator[None]:
    """Collect what BaseHTTPMiddleware of older versions leaves open when it is cancelled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)
        yield
        gc.collect()


@pytest.mark.usefixtures("starlette_leaves_streams_open")
@pytest.mark.parametrize("with_base", [False, True], ids=["plain", "base-http-middleware"])
@pytest.mark.parametrize(
    ("path", "status"),
    [("/async", 504), ("/thread", 504), ("/noticed", 504), ("/stream", 200), ("/quick", 200)],
)
def test_fastapi(path: str, status: int, with_base: bool) -> None:
    inner = fastapi_app()
    if with_base:

        async def passes(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        inner.add_middleware(BaseHTTPMiddleware, dispatch=passes)
    # Only the first two are late by the clock of the loop.
    seconds = SOON if path in ("/async", "/thread") else LATE / 2
    app = asgi.RequestTimeoutMiddleware(inner, seconds=seconds, clock=inner.state.clock)
    # Starlette's middleware waits for the thread, in spite of the cancellation.
    timer = threading.Timer(SOON * 20, inner.state.released.set)
    timer.start()
    answer = call_asgi(app, path)
    timer.cancel()
    assert answer.status == status
    assert call_asgi(asgi.RequestTimeoutMiddleware(inner, seconds=LATE), "/quick").status == 200
    if path == "/stream":
        assert answer.body == b"ab"


@pytest.mark.usefixtures("starlette_leaves_streams_open")
@pytest.mark.parametrize("with_base", [False, True], ids=["plain", "base-http-middleware"])
def test_the_client_does_not_wait_for_a_thread(with_base: bool) -> None:
    inner = fastapi_app()
    if with_base:

        async def passes(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        inner.add_middleware(BaseHTTPMiddleware, dispatch=passes)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        assert not inner.state.released.is_set()
        sent.append(message)
        if message["type"] == "http.response.body":
            inner.state.released.set()

    scope = {**HTTP, "path": "/thread", "query_string": b"", "scheme": "http", "http_version": "1.1"}
    asyncio.run(asgi.RequestTimeoutMiddleware(inner, seconds=SOON)(scope, receive, send))
    assert [message.get("status") for message in sent] == [504, None]


def test_threads_that_go_on_do_not_use_up_the_pool() -> None:
    async def run() -> list[int]:
        inner = fastapi_app()
        app = asgi.RequestTimeoutMiddleware(inner, seconds=SOON)
        statuses: list[int] = []

        async def ask(path: str) -> None:
            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            scope = {**HTTP, "path": path, "query_string": b"", "scheme": "http", "http_version": "1.1"}
            await app(scope, receive, send)

        anyio.to_thread.current_default_thread_limiter().total_tokens = 2
        await asyncio.gather(*(ask("/thread") for _ in range(4)))
        inner.state.released.set()
        return statuses

    assert asyncio.run(run()) == [504] * 4


# --- WSGI


def flask_app(clock: FrozenClock) -> Flask:
    app = Flask(__name__)

    @app.get("/<int:seconds>")
    def work(seconds: int) -> str:
        clock.advance(seconds)
        deadline = request_deadline(request.environ)
        assert deadline is not None
        return f"{deadline.remaining:g} {deadline.timeout():g} {deadline.timeout(5):g}"

    @app.get("/fallback")
    def fallback() -> str:
        clock.advance(100)
        deadline = request_deadline(request.environ)
        assert deadline is not None
        try:
            deadline.timeout()
        except RequestTimeoutError:
            return "from the cache"
        raise AssertionError

    return app


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def test_a_view_reads_what_is_left(clock: FrozenClock) -> None:
    app = wsgi.RequestTimeoutMiddleware(flask_app(clock), seconds=30, clock=clock)
    assert call_wsgi(app, "/10").body == b"20 20 5"
    assert call_wsgi(app, "/28").body == b"2 2 2"


def test_a_framework_that_makes_a_page_of_the_error_does_not_hide_it(
    clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = wsgi.RequestLoggingMiddleware(
        wsgi.RequestTimeoutMiddleware(flask_app(clock), seconds=30, clock=clock)
    )
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        answer = call_wsgi(app, "/31")
    assert (answer.status, answer.header("Content-Type")) == (504, "application/problem+json")
    record = vars(next(record for record in caplog.records if record.name == "mks_hardening.request"))
    assert (record["refused_by"], record["refused_rule"], record["status"]) == (
        "request_timeout",
        "deadline",
        504,
    )


def test_a_view_may_respond_after_the_deadline_all_the_same(clock: FrozenClock) -> None:
    app = wsgi.RequestTimeoutMiddleware(flask_app(clock), seconds=30, clock=clock)
    assert call_wsgi(app, "/fallback").body == b"from the cache"


def test_a_dropped_page_is_closed(clock: FrozenClock) -> None:
    closed: list[bool] = []

    class Page:
        def __iter__(self) -> Any:
            raise AssertionError("the page of an error is not sent")

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Any:
        clock.advance(31)
        deadline = request_deadline(environ)
        assert deadline is not None
        try:
            deadline.timeout()
        except RequestTimeoutError:
            start_response("500 Internal Server Error", [])(b"written")
        return Page()

    answer = call_wsgi(wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock))
    assert (answer.status, closed) == (504, [True])


Views = Callable[[FrozenClock, list[str]], Any]


def late_call(environ: Any, clock: FrozenClock) -> None:
    """A call of another service, which does not begin because the deadline has passed."""
    clock.advance(31)
    deadline = request_deadline(environ)
    assert deadline is not None
    deadline.timeout(5)


def raises_after_its_head(clock: FrozenClock, _closed: list[str]) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=b")])
        late_call(environ, clock)

    return app


def raises_in_a_generator(clock: FrozenClock, closed: list[str]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=b")])
            yield b""  # sends nothing
            late_call(environ, clock)
        finally:
            closed.append("generator")

    return app


def raises_in_iter(clock: FrozenClock, closed: list[str]) -> Any:
    class Body:
        def __init__(self, environ: Any) -> None:
            self.environ = environ

        def __iter__(self) -> Iterator[bytes]:
            late_call(self.environ, clock)
            raise AssertionError

        def __len__(self) -> int:
            return 1

        def close(self) -> None:
            closed.append("body")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return Body(environ)

    return app


def makes_a_page_in_a_generator(clock: FrozenClock, closed: list[str]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("Content-Type", "text/plain")])
            try:
                late_call(environ, clock)
            except RequestTimeoutError:
                start_response("500 Internal Server Error", [("Content-Type", "text/html")], sys.exc_info())
            yield b"a page for the error"
        finally:
            closed.append("generator")

    return app


def makes_an_empty_page_in_a_generator(clock: FrozenClock, closed: list[str]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            late_call(environ, clock)
        except RequestTimeoutError:
            start_response("503 Service Unavailable", [("Content-Type", "text/html")])
        closed.append("generator")
        yield from ()

    return app


def streams_with_flask(clock: FrozenClock, closed: list[str]) -> Any:
    app = Flask(__name__)

    @app.get("/")
    def view() -> Response:
        environ = request.environ

        def rows() -> Iterator[str]:
            try:
                late_call(environ, clock)
                yield "row"
            finally:
                closed.append("rows")

        return Response(rows(), headers={"X-Report": "1"})

    return app


@pytest.mark.parametrize("is_logged", [False, True], ids=["alone", "logged"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "view",
    [
        raises_after_its_head,
        raises_in_a_generator,
        raises_in_iter,
        makes_a_page_in_a_generator,
        makes_an_empty_page_in_a_generator,
        streams_with_flask,
    ],
)
def test_a_response_without_a_byte_is_replaced(
    clock: FrozenClock, view: Views, method: str, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []
    app: Any = wsgi.RequestTimeoutMiddleware(view(clock, closed), seconds=30, clock=clock)
    if is_logged:
        app = wsgi.RequestLoggingMiddleware(app)
    if method == "HEAD" and view is streams_with_flask:
        assert call_wsgi(app, method=method).status == 200  # Flask does not begin the generator
        return
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        answer = call_wsgi(app, method=method)
    assert (answer.status, answer.header("Content-Type")) == (504, "application/problem+json")
    assert (answer.header("Set-Cookie"), answer.header("X-Report")) == (None, None)
    assert (answer.body == b"") is (method == "HEAD")
    assert len(closed) == (0 if view is raises_after_its_head else 1)
    records = [vars(record) for record in caplog.records if record.name == "mks_hardening.request"]
    assert [(record["refused_by"], record["status"]) for record in records] == (
        [("request_timeout", 504)] if is_logged else []
    )


def test_a_stream_that_has_begun_is_broken_off_and_the_record_says_so(
    clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        late_call(environ, clock)

    logged = wsgi.RequestLoggingMiddleware(wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock))
    heads: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        heads.append(status)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    body: Any = logged(environ, start_response)
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        assert (next(body), heads) == (b"a", ["200 OK"])
        with pytest.raises(RequestTimeoutError):  # the server must break the connection off
            next(body)
        body.close()
    record = vars(next(record for record in caplog.records if record.name == "mks_hardening.request"))
    assert (record["status"], record["outcome"], record["exc_type"]) == (200, "error", "RequestTimeoutError")
    assert heads == ["200 OK"]


def test_what_was_written_cannot_be_replaced(clock: FrozenClock) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written")
        late_call(environ, clock)

    with pytest.raises(RequestTimeoutError):
        call_wsgi(wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock))


def test_other_errors_of_a_generator_are_its_own(clock: FrozenClock) -> None:
    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise KeyError("x")
        yield b""

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    heads: list[str] = []
    with pytest.raises(KeyError):
        wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock)(environ, heads.append)  # type: ignore[arg-type]
    assert heads == []  # the server responds to the error


def test_a_generator_in_time_is_handed_on_chunk_by_chunk(clock: FrozenClock) -> None:
    steps: list[str] = []

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for name in ("a", "b"):
            steps.append(name)
            yield name.encode()
        steps.append("end")

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    heads: list[Any] = []
    body: Any = wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock)(
        environ,
        lambda *head: heads.append(head),  # type: ignore[arg-type]
    )
    assert (len(heads), steps) == (1, ["a"]), "Granian takes the head before the body"
    chunks = iter(body)
    assert (next(chunks), len(heads), steps) == (b"a", 1, ["a"])
    assert list(chunks) == [b"b"]
    assert not hasattr(body, "__len__")  # waitress would call it
    assert (len(heads), steps) == (1, ["a", "b", "end"])


def test_a_file_of_the_server_stays_its_own(clock: FrozenClock) -> None:
    class FileWrapper:
        pass

    file: Any = FileWrapper()
    heads: list[Any] = []

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return file

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.file_wrapper": FileWrapper}
    timed: Any = wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock)
    assert timed(environ, lambda *head: heads.append(head)) is file
    assert heads == [("200 OK", [])]


@pytest.mark.parametrize(("outer", "inner"), [(10, 60), (60, 10), (10, 10), (10, None), (None, 10)])
@pytest.mark.parametrize("fails_in", ["view", "generator"])
def test_the_earlier_of_two_deadlines_counts(
    clock: FrozenClock, outer: float | None, inner: float | None, fails_in: str
) -> None:
    left: list[float] = []

    def app(environ: Any, start_response: Any) -> Any:
        deadline = request_deadline(environ)
        assert deadline is not None
        left.append(deadline.timeout())
        start_response("200 OK", [("Content-Type", "text/plain")])
        if fails_in == "view":
            late_call(environ, clock)

        def rows() -> Iterator[bytes]:
            late_call(environ, clock)
            yield b"row"

        return rows()

    both = wsgi.RequestTimeoutMiddleware(
        wsgi.RequestTimeoutMiddleware(app, seconds=inner, clock=clock), seconds=outer, clock=clock
    )
    answer = call_wsgi(both)
    assert (answer.status, json.loads(answer.body)["limit"], left) == (504, 10, [10])


@pytest.mark.parametrize(("outer", "inner"), [(10, 60), (60, 10), (10, 10), (10, None), (None, 10)])
def test_the_earlier_of_two_asgi_deadlines_counts(
    clock: FrozenClock, outer: float | None, inner: float | None
) -> None:
    left: list[float] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        deadline = request_deadline(scope)
        assert deadline is not None
        left.append(deadline.timeout())
        clock.advance(20)
        left.append(deadline.timeout())

    inside = asgi.RequestTimeoutMiddleware(app, seconds=inner, clock=clock)
    start, body = play(inside, seconds=outer, clock=clock)
    assert (start["status"], json.loads(body["body"])["limit"], left) == (504, 10, [10])


@pytest.mark.parametrize(("outer", "inner"), [(SOON, LATE), (LATE, SOON)])
def test_the_earlier_of_two_asgi_deadlines_cancels(outer: float, inner: float) -> None:
    start, body = play(asgi.RequestTimeoutMiddleware(sending(LATE), seconds=inner), seconds=outer)
    assert (start["status"], json.loads(body["body"])["limit"]) == (504, SOON)


def test_an_inner_rule_cuts_a_stream_off_inside_an_earlier_deadline() -> None:
    inside = asgi.RequestTimeoutMiddleware(
        sending(START, MORE, LATE), rules=[RequestTimeoutRule("/", SOON * 2, whole_response=True)]
    )
    with pytest.raises(RequestTimeoutError):
        play(inside, seconds=SOON)


def test_errors_before_the_deadline_pass(clock: FrozenClock) -> None:
    def app(_environ: Any, _start_response: Any) -> Any:
        raise KeyError("x")

    with pytest.raises(KeyError):
        call_wsgi(wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock))


def test_the_response_of_the_application_is_handed_on_as_it_is(clock: FrozenClock) -> None:
    body = [b"page"]

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    wrapped = wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    assert wrapped(environ, lambda *_: None) is body  # type: ignore[arg-type]  # a server's
    assert wsgi.RequestTimeoutMiddleware(app, seconds=None)(environ, lambda *_: None) is body  # type: ignore[arg-type]


@pytest.mark.parametrize("area", [wsgi, asgi])
@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda area, app: area.RequestTimeoutMiddleware(app, seconds=0), "seconds"),
        (lambda area, app: area.RequestTimeoutMiddleware(app, seconds="30"), "seconds"),
        (lambda area, app: area.RequestTimeoutMiddleware(app, rules=["/x"]), "rules"),
        (lambda area, app: area.RequestTimeoutRule("x", 1), "path"),
        (lambda area, app: area.RequestTimeoutRule("/x", -1), "seconds"),
        (lambda area, app: area.RequestTimeoutRule("/x", 1, whole_response="yes"), "whole_response"),
        (lambda area, app: area.RequestTimeoutRule("/x", None, whole_response=True), "whole_response"),
    ],
)
def test_wrong_options_are_refused_by_parameter(area: Any, make: Any, parameter: str) -> None:
    app = sending() if area is asgi else (lambda environ, start_response: [])
    with pytest.raises(ConfigurationError) as refused:
        make(area, app)
    assert refused.value.parameter == parameter


def test_a_thread_cannot_end_a_response() -> None:
    rules = [RequestTimeoutRule("/a", 5), RequestTimeoutRule("/b", 5, whole_response=True)]
    asgi.RequestTimeoutMiddleware(sending(), rules=rules)
    with pytest.raises(ConfigurationError, match="whole_response has no effect under WSGI") as refused:
        wsgi.RequestTimeoutMiddleware(lambda environ, start_response: [], rules=rules)
    assert refused.value.parameter == "rules"


def test_wrong_times_are_refused(clock: FrozenClock) -> None:
    app = flask_app(clock)

    @app.get("/wrong")
    def wrong() -> str:
        deadline = request_deadline(request.environ)
        assert deadline is not None
        with pytest.raises(ConfigurationError, match="at_most"):
            deadline.timeout(0)
        return repr(deadline)

    answer = call_wsgi(wsgi.RequestTimeoutMiddleware(app, seconds=30, clock=clock), "/wrong")
    assert answer.body == b"RequestDeadline(seconds=30, remaining=30.000)"
    assert request_deadline({}) is None


def test_messages_of_a_task_that_outlives_the_application_are_dropped() -> None:
    async def late(send: Any) -> None:
        await asyncio.sleep(3 * SOON)
        await send(START)
        await send(END)

    tasks: list[asyncio.Task[None]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        tasks.append(asyncio.create_task(late(send)))
        await asyncio.sleep(LATE)

    async def run() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await asgi.RequestTimeoutMiddleware(app, seconds=SOON)(HTTP, receive, send)
        await tasks[0]
        return sent

    assert [message.get("status") for message in asyncio.run(run())] == [504, None]


def test_the_deadline_of_a_whole_response_ends_with_its_last_byte() -> None:
    finished: list[bool] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        await asyncio.sleep(3 * SOON)  # background work
        finished.append(True)

    rule = RequestTimeoutRule("/", SOON, whole_response=True)
    assert play(asgi.RequestTimeoutMiddleware(app, rules=[rule]), HTTP) == [START, END]
    assert finished == [True]


def test_an_error_during_the_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        try:
            await asyncio.sleep(LATE)
        finally:
            raise ValueError("rollback failed")

    sent = play(asgi.RequestTimeoutMiddleware(app, seconds=SOON), HTTP)
    assert [message.get("status") for message in sent] == [504, None]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["rollback failed"]
