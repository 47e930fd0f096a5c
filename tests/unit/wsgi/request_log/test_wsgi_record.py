from __future__ import annotations

import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening._core.process.context import bind, current
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import (
    MemorySessionStore,
    ProxyTrust,
    RequestLoggingMiddleware,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
)
from mks_hardening.wsgi.request_log._exchange import Exchange, ResponseBody, SizedResponseBody
from wsgi_scripted import environ_of, serve

WSGI_ONLY = {
    "test_a_failed_request_is_not_kept_alive_by_its_traceback",
    "test_a_file_that_fails_to_close_is_an_error",
    "test_a_file_without_a_position_counts_as_sent",
    "test_a_file_wrapper_that_cannot_be_watched_is_read",
    "test_an_error_that_the_log_does_not_take_goes_to_the_server_log",
    "test_an_exchange_must_decide",
    "test_bodies_are_iterators_with_a_length_only_where_there_was_one",
    "test_bytes_are_those_of_chunks_that_the_server_came_back_after",
    "test_close_may_come_from_another_thread",
    "test_interleaved_bodies_on_one_thread_keep_their_ids",
    "test_the_record_follows_the_last_byte",
    "test_the_user_of_the_server_is_named",
}

Headers = [("Content-Type", "text/plain")]


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.contexts: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.contexts.append(dict(current()))


@pytest.fixture
def handler() -> Records:
    return Records()


@pytest.fixture
def logger(handler: Records) -> logging.Logger:
    logger = logging.Logger("record", level=logging.INFO)  # noqa: LOG001 - of its own
    logger.addHandler(handler)
    return logger


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", list(Headers))
    return [b"hello"]


# --- context ---


def test_interleaved_bodies_on_one_thread_keep_their_ids(logger: logging.Logger, handler: Records) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", list(Headers))
        bind(user_id=environ["QUERY_STRING"])
        for number in range(3):
            yield f"{number} {current()['request_id']} {current()['user_id']};".encode()

    wrapped = RequestLoggingMiddleware(app, logger=logger)
    bodies, ids = [], ["first", "second", "third"]
    for name in ids:
        environ = environ_of({"query": name, "headers": {"X-Request-ID": name}})
        bodies.append(iter(wrapped(environ, lambda *_: None)))
    seen: dict[str, bytes] = dict.fromkeys(ids, b"")
    for _ in range(3):
        for name, body in zip(ids, bodies, strict=True):
            seen[name] += next(body)
    assert dict(current()) == {}
    for body in reversed(bodies):
        assert list(body) == []
        body.close()  # type: ignore[attr-defined]
    for name in ids:
        assert seen[name].decode() == "".join(f"{number} {name} {name};" for number in range(3))
    assert [record.request_id for record in handler.records] == ids[::-1]
    assert [(one["request_id"], one["user_id"]) for one in handler.contexts] == [(n, n) for n in ids[::-1]]


def test_nothing_bound_in_a_request_is_left_behind(logger: logging.Logger) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        bind(leak="yes")
        return hello(environ, start_response)

    call_wsgi(RequestLoggingMiddleware(app, logger=logger))
    assert dict(current()) == {}


def test_what_was_bound_outside_is_seen_inside(logger: logging.Logger, handler: Records) -> None:
    def run() -> None:
        bind(worker=7)
        call_wsgi(RequestLoggingMiddleware(hello, logger=logger))

    contextvars.copy_context().run(run)
    assert handler.contexts[0]["worker"] == 7


def test_close_may_come_from_another_thread(logger: logging.Logger, handler: Records) -> None:
    seen: list[Any] = []

    class Rows:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a", b"b"])

        def close(self) -> None:
            seen.append(current()["request_id"])

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Rows:
        start_response("200 OK", list(Headers))
        return Rows()

    environ = environ_of({"headers": {"X-Request-ID": "mine"}})
    body: Any = RequestLoggingMiddleware(app, logger=logger)(environ, lambda *_: None)
    assert next(body) == b"a"
    thread = threading.Thread(target=body.close)
    thread.start()
    thread.join()
    assert seen == ["mine"]
    assert [record.outcome for record in handler.records] == ["aborted"]


# --- the record ---


def test_the_record_follows_the_last_byte(logger: logging.Logger, handler: Records) -> None:
    body: Any = RequestLoggingMiddleware(hello, logger=logger)(environ_of({}), lambda *_: None)
    assert next(body) == b"hello"
    assert handler.records == []
    assert next(body, None) is None
    assert len(handler.records) == 1  # nothing is left that could fail
    body.close()
    body.close()
    assert len(handler.records) == 1


def test_the_attributes_are_those_promised(logger: logging.Logger, handler: Records) -> None:
    call_wsgi(RequestLoggingMiddleware(hello, logger=logger))
    promised = "method path status bytes duration_ms ttfb_ms outcome exc_type client_ip request_id trace_id"
    plain = logging.makeLogRecord({}).__dict__
    assert sorted(set(handler.records[0].__dict__) - set(plain)) == sorted(promised.split())
    assert handler.records[0].getMessage() == "GET / 200"
    assert handler.records[0].name == "record"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"),
        ("x" * 5_000, "x" * 256 + "..."),
        ("a\nINFO forged", "a\\nINFO forged"),
        ("現場".encode().decode("latin-1"), "現場"),
        ("\x1b[31mred\xff", "\\x1b[31mred\\xff"),
    ],
)
def test_the_user_agent_is_bounded_and_printable(
    logger: logging.Logger, handler: Records, sent: str, shown: str
) -> None:
    call_wsgi(RequestLoggingMiddleware(hello, logger=logger), environ={"HTTP_USER_AGENT": sent})
    assert handler.records[0].user_agent == shown


def test_the_user_of_the_server_is_named(logger: logging.Logger, handler: Records) -> None:
    call_wsgi(RequestLoggingMiddleware(hello, logger=logger), environ={"REMOTE_USER": "tanaka\n" + "x" * 500})
    assert handler.records[0].user_id == "tanaka\\n" + "x" * 249


def test_the_user_of_the_session_is_named_from_sign_in_to_sign_out(
    logger: logging.Logger, handler: Records
) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/in":
            environ["mks_hardening.session"].start("u7")
        if environ["PATH_INFO"] == "/out":
            environ["mks_hardening.session"].end()
        return hello(environ, start_response)

    wrapped = RequestLoggingMiddleware(
        SessionTimeoutMiddleware(app, store=MemorySessionStore()), logger=logger
    )
    cookie = ""
    for path in ("/", "/in", "/", "/out", "/"):
        answer = call_wsgi(wrapped, path=path, environ={"HTTP_COOKIE": cookie}, scheme="https")
        cookie = (answer.header("Set-Cookie") or cookie).partition(";")[0]
        if path == "/":
            assert answer.header("Vary") is None  # the record makes no answer depend on the cookie
    users = [getattr(record, "user_id", None) for record in handler.records]
    assert users == [None, "u7", "u7", "u7", None]


def test_the_header_list_of_the_application_is_left_alone(logger: logging.Logger) -> None:
    shared = list(Headers)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", shared)
        return [b""]

    for _ in range(3):
        call_wsgi(RequestLoggingMiddleware(app, logger=logger))
    assert shared == Headers


def test_a_level_that_is_off_costs_no_record(logger: logging.Logger, handler: Records) -> None:
    logger.setLevel(logging.ERROR)
    call_wsgi(RequestLoggingMiddleware(hello, logger=logger))
    assert handler.records == []


def test_the_default_logger_has_a_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        call_wsgi(RequestLoggingMiddleware(hello))
    assert [record.name for record in caplog.records] == ["mks_hardening.request"]


def test_two_wrappers_share_one_id(logger: logging.Logger, handler: Records) -> None:
    inner = RequestLoggingMiddleware(hello, logger=logger)
    answer = call_wsgi(RequestLoggingMiddleware(inner, logger=logger))
    assert {record.request_id for record in handler.records} == {answer.header("X-Request-ID")}


def test_inside_the_proxy_wrapper_its_decision_counts(logger: logging.Logger, handler: Records) -> None:
    wrapped = TrustedProxyMiddleware(
        RequestLoggingMiddleware(hello, logger=logger), trust=ProxyTrust(["10.0.0.0/8"])
    )
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-ID": "outer"}
    call_wsgi(wrapped, headers=headers, environ={"REMOTE_ADDR": "10.1.2.3"})
    call_wsgi(wrapped, headers=headers, environ={"REMOTE_ADDR": "192.0.2.1"})
    inside, outside = handler.records
    assert (inside.client_ip, inside.request_id) == ("203.0.113.9", "outer")
    assert outside.client_ip == "192.0.2.1"
    assert outside.request_id != "outer"


@pytest.mark.parametrize(("fails", "outcome", "status"), [(False, "ok", 200), (True, "error", 500)])
def test_observers_hear_of_the_end(logger: logging.Logger, fails: bool, outcome: str, status: int) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if fails:
            raise ValueError
        return hello(environ, start_response)

    heard: list[Any] = []
    events.add_observer(heard.append)
    try:
        call_wsgi(RequestLoggingMiddleware(app, logger=logger), environ={"mks_hardening.route": "/<x>"})
    finally:
        events.remove_observer(heard.append)
    assert [(e.method, e.route, e.status, e.outcome) for e in heard] == [("GET", "/<x>", status, outcome)]


def test_observers_hear_even_when_the_logger_raises() -> None:
    class Broken(logging.Logger):
        def handle(self, record: logging.LogRecord) -> None:
            raise OSError

    heard: list[Any] = []
    events.add_observer(heard.append)
    try:
        assert call_wsgi(RequestLoggingMiddleware(hello, logger=Broken("x"))).body == b"hello"
    finally:
        events.remove_observer(heard.append)
    assert len(heard) == 1


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\n"])
def test_the_header_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RequestLoggingMiddleware(hello, request_id_header=name)
    assert caught.value.parameter == "request_id_header"


@pytest.mark.parametrize("paths", ["/livez", ["livez"], ["/a//b"], ["/a/../b"], ["/a\\b"], [5]])
def test_skipped_paths_are_checked(paths: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RequestLoggingMiddleware(hello, skip_paths=paths)
    assert caught.value.parameter == "skip_paths"


def test_a_skipped_path_may_be_japanese(logger: logging.Logger, handler: Records) -> None:
    wrapped = RequestLoggingMiddleware(hello, logger=logger, skip_paths=["/監視"])
    call_wsgi(wrapped, "/監視")
    assert handler.records == []


# --- the exchange ---


def test_a_failed_request_is_not_kept_alive_by_its_traceback() -> None:
    class App:
        def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            raise ValueError

    logger = logging.Logger("quiet", level=logging.CRITICAL + 1)  # noqa: LOG001 - of its own
    exchanges: list[weakref.ref[Any]] = []

    class Watched(Exchange):
        def failure(self) -> tuple[str, list[tuple[str, str]], bytes]:
            exchanges.append(weakref.ref(self))
            return "500 Internal Server Error", list(Headers), b"x"

        def finished(self) -> None:
            logger.info("done")

    gc.collect()
    gc.disable()
    try:
        start: Any = lambda *_: None  # noqa: E731
        body: Any = Watched(environ_of({}), start, FrozenClock().monotonic).answer(App())
        assert list(body) == [b"x"]
        body.close()
        del body
        assert [reference() for reference in exchanges] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("missing", ["step", "failure", "finished"])
def test_an_exchange_must_decide(missing: str) -> None:
    exchange = Exchange(environ_of({}), lambda *_: None, FrozenClock().monotonic)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        getattr(exchange, missing)(*(("200 OK", []) if missing == "step" else ()))


def test_bodies_are_iterators_with_a_length_only_where_there_was_one(logger: logging.Logger) -> None:
    def generator(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", list(Headers))
        yield b""

    sized = RequestLoggingMiddleware(hello, logger=logger)(environ_of({}), lambda *_: None)
    unsized = RequestLoggingMiddleware(generator, logger=logger)(environ_of({}), lambda *_: None)
    assert (type(sized), type(unsized)) == (SizedResponseBody, ResponseBody)
    assert len(sized) == 1  # type: ignore[arg-type]
    assert not hasattr(unsized, "__len__")
    assert iter(sized) is sized


class Stubborn:
    """A file wrapper that lets nobody take its close()."""

    __slots__ = ("filelike",)

    def __init__(self, filelike: Any, size: int = 8192) -> None:
        self.filelike = filelike

    def __iter__(self) -> Iterator[bytes]:
        return iter([self.filelike.read()])

    def close(self) -> None:
        self.filelike.close()


def test_a_file_wrapper_that_cannot_be_watched_is_read(logger: logging.Logger, handler: Records) -> None:
    import io

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", list(Headers))
        return environ["wsgi.file_wrapper"](io.BytesIO(b"abcdef"))

    environ = environ_of({"environ": {"wsgi.file_wrapper": Stubborn}})
    served = serve(RequestLoggingMiddleware(app, logger=logger), environ)
    assert served.body == b"abcdef"
    assert (handler.records[0].bytes, handler.records[0].outcome) == (6, "ok")


def test_a_file_without_a_position_counts_as_sent(logger: logging.Logger, handler: Records) -> None:
    class Pipe:
        def read(self, size: int = -1) -> bytes:
            return b""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [*Headers, ("Content-Length", "0")])
        return environ["wsgi.file_wrapper"](Pipe())

    serve(RequestLoggingMiddleware(app, logger=logger), environ_of({}))
    assert handler.records[0].outcome == "ok"


def test_a_file_that_fails_to_close_is_an_error(logger: logging.Logger, handler: Records) -> None:
    import io

    class Bad(io.BytesIO):
        has_raised = False

        def close(self) -> None:
            if not self.has_raised:  # the finalizer closes once more, and nobody could catch that
                self.has_raised = True
                raise OSError("disk gone")
            super().close()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", list(Headers))
        return environ["wsgi.file_wrapper"](Bad(b"abc"))

    served = serve(RequestLoggingMiddleware(app, logger=logger), environ_of({}))
    assert served.raised == "OSError"
    assert (handler.records[0].outcome, handler.records[0].bytes) == ("error", 3)


def test_an_error_that_the_log_does_not_take_goes_to_the_server_log() -> None:
    import io

    class Broken(logging.Logger):
        def handle(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ValueError("the cause")

    errors = io.StringIO()
    environ = environ_of({"headers": {"X-Request-ID": "the-id"}, "environ": {"wsgi.errors": errors}})
    served = serve(RequestLoggingMiddleware(app, logger=Broken("x")), environ)
    assert served.status.startswith("500")
    assert "request the-id: the record could not be written" in errors.getvalue()
    assert "ValueError: the cause" in errors.getvalue()


def test_a_path_without_end_is_cut(logger: logging.Logger, handler: Records) -> None:
    call_wsgi(RequestLoggingMiddleware(hello, logger=logger), "/" + "x" * 100_000)
    assert len(handler.records[0].path) == 2051
    assert handler.records[0].path.endswith("xx...")


def test_a_result_that_is_no_iterable_is_an_error(logger: logging.Logger, handler: Records) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", list(Headers))

    served = serve(RequestLoggingMiddleware(app, logger=logger), environ_of({}))
    assert (served.status[:3], handler.records[0].exc_type) == ("500", "TypeError")


# --- what the server really took


CHUNKS = [b"a" * 10, b"b" * 20, b"c" * 30]


@pytest.mark.parametrize("declared", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("kind", [list, iter], ids=["sized", "stream"])
@pytest.mark.parametrize("taken", [0, 1, 2, 3])
@pytest.mark.parametrize("ends", ["breaks off", "stops", "reads to the end"])
def test_bytes_are_those_of_chunks_that_the_server_came_back_after(
    *, declared: bool, kind: Any, taken: int, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    def application(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "60")] if declared else [])
        return kind(CHUNKS)

    caplog.set_level(logging.INFO, "mks_hardening.request")
    body: Any = RequestLoggingMiddleware(application)(environ_of({}), lambda *_: bytes.__len__)  # type: ignore[arg-type]
    if ends == "reads to the end":
        assert b"".join(body) == b"".join(CHUNKS)
    for _ in range(taken if ends != "reads to the end" else 0):
        next(body)
    if ends == "breaks off":
        with pytest.raises(BrokenPipeError):
            _close_as_servers_do(body)
    else:
        body.close()
    said = vars(caplog.records[0])
    whole = ends == "reads to the end" or (ends == "stops" and declared and taken == 3)
    chunks = CHUNKS[: max(0, taken - 1)] if ends == "breaks off" else CHUNKS[:taken]
    confirmed = 60 if whole else sum(map(len, chunks))
    assert (said["outcome"], said["bytes"]) == ("ok" if whole else "aborted", confirmed)


def _close_as_servers_do(body: Any) -> None:
    try:
        raise BrokenPipeError
    finally:
        body.close()


@pytest.mark.parametrize("around", [("", ""), (" ", ""), ("", "\t"), ("  ", " ")])
def test_a_traceparent_may_have_blanks_around_it(around: tuple[str, str]) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    value = f"{around[0]}00-{trace}-00f067aa0ba902b7-01{around[1]}"
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((current()["trace_id"], "HTTP_TRACEPARENT" in environ))
        start_response("204 No Content", [])
        return []

    call_wsgi(RequestLoggingMiddleware(application), environ={"HTTP_TRACEPARENT": value})
    assert seen == [(trace, True)]


@pytest.mark.parametrize(
    ("method", "shown"),
    [("GET", "GET"), ("M" * 5000, "M" * 32), ("GE\nT\x1b[2J", "GE\\nT\\x1b[2J"), ("\xff\xe9", "\\xff\\xe9")],
)
def test_the_method_is_bounded_and_printable(
    logger: logging.Logger, handler: Records, method: str, shown: str
) -> None:
    seen: list[Any] = []
    events.add_observer(seen.append)
    try:
        serve(RequestLoggingMiddleware(hello, logger=logger), environ_of({}) | {"REQUEST_METHOD": method})
    finally:
        events.remove_observer(seen.append)
    (record,) = handler.records
    assert record.method == shown
    assert record.getMessage().startswith(shown)
    assert [event.method for event in seen if isinstance(event, events.RequestFinished)] == [shown]
