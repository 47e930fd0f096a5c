"""The record of a request: who left, what counts as its end, and the context of its log lines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import litestar
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_server import Server, call, http, run, socket
from mks_hardening._core.process.context import current
from mks_hardening.asgi import CustomResponse, ProxyTrust, RequestLoggingMiddleware
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
GONE = {"type": "http.disconnect"}
REQUEST = {"type": "http.request", "body": b"", "more_body": False}


def piece(body: bytes = b"abc", *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    logger, kept = logging.getLogger("mks_hardening.request"), Kept()
    logger.addHandler(kept)
    with caplog.at_level(logging.INFO, logger.name):
        yield kept.records
    logger.removeHandler(kept)


def outcome(records: list[Any]) -> tuple[Any, ...]:
    (record,) = records
    return record.status, record.outcome, record.levelname


class Dropping(Server):
    """A server of today: when the client has left, it drops what is sent, and says so to ``receive`` alone."""

    def __init__(self, leaves_after: int) -> None:
        super().__init__(REQUEST)
        self.on_send = lambda message: len(self.sent) == leaves_after and self.push(GONE)


# --- clients that leave


@pytest.mark.parametrize("leaves_after", [2, 3, 4])
@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_left_is_noticed_where_the_application_never_receives(
    reads: bool, leaves_after: int, records: list[Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if reads:
            await receive()
        await send(START)
        for _ in range(4):
            await send(piece())
        await send(piece(b"", more=False))

    async def play() -> None:
        server = Dropping(leaves_after)
        if not reads:
            await server.receive()  # as a server that has no body to hand on
        await server.serve(RequestLoggingMiddleware(app), http())
        assert len(server.sent) == 6

    run(play())
    assert outcome(records) == (200, "aborted", "INFO")


@pytest.mark.parametrize("declared", [True, False])
def test_a_response_of_one_message_asks_nobody(declared: bool, records: list[Any]) -> None:
    length = [(b"content-length", b"3")] if declared else []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": length})
        await send(piece(more=False))

    assert call(RequestLoggingMiddleware(app), http()).receives == 0
    assert outcome(records) == (200, "ok", "INFO")


def test_all_declared_bytes_are_enough(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"6")]})
        await send(piece())
        await send(piece())
        await send(piece(b"", more=False))

    async def play() -> None:
        await Dropping(3).serve(RequestLoggingMiddleware(app), http())

    run(play())
    assert outcome(records) == (200, "ok", "INFO")


def test_what_the_look_for_a_disconnect_finds_is_kept_for_the_application(records: list[Any]) -> None:
    seen: list[Any] = []
    sent = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece())
        await send(piece(more=False))
        seen.extend([await receive(), await receive()])

    call(RequestLoggingMiddleware(app), http(method="POST"), *sent)
    assert seen == sent
    assert outcome(records) == (200, "ok", "INFO")


def test_nothing_is_taken_from_an_application_that_waits_for_a_message(records: list[Any]) -> None:
    """As Starlette does during a stream. The message is in the queue before the waiting task runs again."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.create_task(receive())
        await send(START)
        await asyncio.sleep(0)
        for _ in range(3):
            await send(piece())
        await send(piece(more=False))
        async with asyncio.timeout(1):
            assert await waiting == GONE

    async def play() -> None:
        await Dropping(4).serve(RequestLoggingMiddleware(app), http())

    run(play())
    assert records[0].status == 200


def test_the_server_is_left_with_no_reader(records: list[Any]) -> None:
    """The look for a disconnect, which does not wait, must not take a later message either."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(piece())
        await send(piece(more=False))

    async def play() -> None:
        server = Server(REQUEST)
        await server.serve(RequestLoggingMiddleware(app), http())
        server.push({"type": "http.request", "body": b"next"})
        async with asyncio.timeout(1):
            assert (await server.receive())["body"] == b"next"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(play())
    assert outcome(records) == (200, "ok", "INFO")


@pytest.mark.parametrize("how", ["here", "task", "after a timeout", "after a cancellation", "at once"])
@pytest.mark.parametrize("kind", ["queue", "event"])
def test_an_application_may_wait_for_a_message_after_the_look_for_one(
    kind: str, how: str, records: list[Any]
) -> None:
    """Whatever became of the call that the look has begun, the message comes, and comes once."""

    class Waking(Server):
        """Waits as uvicorn does: for an event, and then looks at its state."""

        def __init__(self) -> None:
            super().__init__(REQUEST)
            self.woken = asyncio.Event()

        def push(self, message: Any) -> None:
            super().push(message)
            if hasattr(self, "woken"):
                self.woken.set()

        async def receive(self) -> Any:
            if self._queue.empty() and self._gone is None:
                self.woken.clear()
                await self.woken.wait()
            return await super().receive()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        for _ in range(3):
            await send(piece())
        if how == "after a timeout":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await receive()
        elif how == "after a cancellation":
            waiting = asyncio.create_task(receive())
            await asyncio.sleep(0.005)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        if how == "at once":
            server.push({"type": "http.request", "body": b"late"})
        else:
            loop.call_later(0.01, server.push, {"type": "http.request", "body": b"late"})
        call = receive()
        async with asyncio.timeout(2):
            message = await (asyncio.create_task(call) if how == "task" else call)
        assert message["body"] == b"late"
        await send(piece())
        server.push(GONE)
        async with asyncio.timeout(2):
            assert [await receive(), await receive()] == [GONE, GONE]
        await send(piece(more=False))

    async def play() -> None:
        nonlocal server, loop
        server, loop = Waking() if kind == "event" else Server(REQUEST), asyncio.get_running_loop()
        await server.serve(RequestLoggingMiddleware(app), http())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    server: Any = None
    loop: Any = None
    run(play())
    assert outcome(records) == (200, "aborted", "INFO")


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_receive_that_fails_while_a_disconnect_is_looked_for(
    error: type[Exception], records: list[Any]
) -> None:
    """The look is no reason for the response to fail."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece())
        await send(piece(more=False))

    async def play() -> None:
        server = Server()

        async def receive() -> Any:
            raise error("no")

        await RequestLoggingMiddleware(app)(http(), receive, server.send)
        assert len(server.sent) == 3

    run(play())
    assert records[0].status == 200


class ClientDisconnectError(Exception):
    """As Starlette wraps the error."""


@pytest.mark.parametrize("wrapped", ["no", "from", "during"])
def test_a_send_that_fails_means_that_the_client_left(wrapped: str, records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await send(piece())
        except OSError as error:
            if wrapped == "no":
                raise
            raise ClientDisconnectError from (error if wrapped == "from" else None)

    async def play() -> None:
        server = Server()

        def fail(message: Any) -> None:
            if "body" in message:
                raise BrokenPipeError

        server.on_send = fail
        with pytest.raises((OSError, ClientDisconnectError)):
            await server.serve(RequestLoggingMiddleware(app), http())

    run(play())
    assert outcome(records) == (200, "aborted", "INFO")
    assert records[0].exc_info is None


def test_an_error_that_is_its_own_cause_is_an_error(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with contextlib.suppress(OSError):
            await send(piece())
        one, other = KeyError("one"), KeyError("other")
        one.__cause__, other.__cause__ = other, one
        raise one

    async def play() -> None:
        server = Server()

        def fail(message: Any) -> None:
            if "body" in message:
                raise BrokenPipeError

        server.on_send = fail
        with pytest.raises(KeyError):
            await server.serve(RequestLoggingMiddleware(app), http())

    run(play())
    assert outcome(records) == (200, "error", "ERROR")


def test_another_error_of_the_application_stays_one(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        call(RequestLoggingMiddleware(app), http())
    assert outcome(records) == (200, "error", "ERROR")


def test_a_client_that_leaves_before_the_response_alerts_nobody(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    assert call(RequestLoggingMiddleware(app), http(), REQUEST, GONE).sent == []
    assert outcome(records) == (0, "aborted", "INFO")


PART = {"type": "http.request", "body": b"half", "more_body": True}


async def starlette_upload(request: Request) -> Response:
    return Response(str(len(await request.body())))


async def starlette_echo(socket: WebSocket) -> None:
    await socket.accept()
    while True:  # as the first example of FastAPI: the end of the socket is an exception
        await socket.send_text(await socket.receive_text())


@litestar.post("/upload")
async def litestar_upload(request: litestar.Request[Any, Any, Any]) -> str:
    return str(len(await request.body()))


@litestar.websocket("/echo")
async def litestar_echo(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


FRAMEWORKS = {
    "starlette": Starlette(
        routes=[Route("/upload", starlette_upload, methods=["POST"]), WebSocketRoute("/echo", starlette_echo)]
    ),
    "litestar": litestar.Litestar([litestar_upload, litestar_echo], logging_config=None),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_client_that_leaves_an_upload_alerts_nobody(framework: str, parts: int, records: list[Any]) -> None:
    app = RequestLoggingMiddleware(FRAMEWORKS[framework])
    with contextlib.suppress(ClientDisconnect):
        call(app, http("/upload", method="POST"), *parts * [PART], GONE)
    assert outcome(records) == (0, "aborted", "INFO")
    assert (records[0].bytes, records[0].ttfb_ms, records[0].exc_info) == (0, None, None)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("code", "ended"), [(1000, "ok"), (1001, "ok"), (1005, "ok"), (1006, "aborted")])
def test_the_end_of_a_websocket_is_no_error(
    framework: str, code: int, ended: str, records: list[Any]
) -> None:
    app = RequestLoggingMiddleware(FRAMEWORKS[framework])
    messages = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": code},
    ]
    with contextlib.suppress(WebSocketDisconnect):
        call(app, socket("/echo"), *messages)
    assert outcome(records) == (101, ended, "INFO")
    assert records[0].exc_info is None


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_error_after_the_client_has_left_stays_one(kind: str, records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not (await receive())["type"].endswith(".disconnect"):
            pass
        raise KeyError("clean-up")

    scope = http() if kind == "http" else socket()
    first = REQUEST if kind == "http" else {"type": "websocket.connect"}
    with pytest.raises(KeyError):
        call(RequestLoggingMiddleware(app), scope, first, {"type": f"{kind}.disconnect", "code": 1000})
    assert outcome(records) == (500, "error", "ERROR")


def test_a_server_error_for_a_complete_request_stays_one(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert [await receive(), await receive()] == [REQUEST, GONE]
        await send({**START, "status": 503})
        await send(piece(more=False))

    call(RequestLoggingMiddleware(app), http(), REQUEST, GONE)
    assert outcome(records) == (503, "aborted", "ERROR")


@pytest.mark.parametrize("begun", [True, False])
def test_a_cancelled_request_is_aborted(begun: bool, records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send(START)
        await asyncio.Event().wait()

    async def play() -> None:
        task = asyncio.create_task(Server().serve(RequestLoggingMiddleware(app), http()))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(play())
    assert outcome(records) == (200 if begun else 0, "aborted", "INFO")


# --- the end


def test_background_work_is_neither_counted_nor_waited_for(records: list[Any]) -> None:
    clock = FrozenClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock.advance(1)
        await send(START)
        await send(piece(more=False))
        assert len(records) == 1
        clock.advance(100)

    call(RequestLoggingMiddleware(app, clock=clock), http())
    assert records[0].duration_ms == 1000


def test_an_error_of_background_work_is_raised_and_not_recorded(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(more=False))
        raise KeyError("background")

    with pytest.raises(KeyError):
        call(RequestLoggingMiddleware(app), http())
    assert outcome(records) == (200, "ok", "INFO")


def test_the_error_behind_a_500_of_the_framework_is_in_the_record(records: list[Any]) -> None:
    """Frameworks answer first and raise then; background work of a 500 does not count."""
    clock = FrozenClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "status": 500})
        await send(piece(more=False))
        clock.advance(100)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        call(RequestLoggingMiddleware(app, clock=clock), http())
    assert outcome(records) == (500, "error", "ERROR")
    assert (records[0].exc_type, records[0].duration_ms) == ("KeyError", 0)


def test_an_error_before_the_response_is_a_500_with_the_id(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("mine")

    server = call(RequestLoggingMiddleware(app), http())
    assert (server.sent[0]["status"], server.sent[1]["body"]) == (500, b"Internal Server Error\n")
    assert server.header("x-request-id") == records[0].request_id
    own = call(
        RequestLoggingMiddleware(app, on_refusal=lambda scope, refusal: CustomResponse(body="だめ")), http()
    )
    assert own.sent[1]["body"].decode() == "だめ"


def test_an_application_that_does_not_respond(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Returns."""

    server = call(RequestLoggingMiddleware(app), http())
    assert server.sent[0]["status"] == 500
    assert outcome(records) == (500, "error", "ERROR")
    assert "without a response" in str(records[0].exc_info[1])


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_a_file_that_the_server_sends_counts_as_declared(kind: str, records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"1234")]})
        await send({"type": f"http.response.{kind}", "path": "/etc/hostname"})

    call(RequestLoggingMiddleware(app), http())
    assert outcome(records) == (200, "ok", "INFO")
    assert records[0].bytes == 1234


def test_a_head_request_sends_no_bytes(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"1234")]})
        await send(piece(b"", more=False))

    call(RequestLoggingMiddleware(app), http(method="HEAD"))
    assert (records[0].outcome, records[0].bytes) == ("ok", 0)


def test_early_hints_are_no_response(records: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        raise KeyError("mine")

    server = call(RequestLoggingMiddleware(app), http())
    assert [message.get("status") for message in server.sent] == [None, 500, None]


# --- ids and context


def test_log_lines_of_the_request_have_its_id_and_later_ones_do_not(records: list[Any]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(
            (current()["request_id"], scope["REQUEST_ID"], dict(scope["headers"])[b"x-request-id"].decode())
        )
        await send(START)
        await send(piece(more=False))
        seen.append(current()["request_id"])  # in background work too

    async def play() -> None:
        assert "request_id" not in current()
        await Server().serve(RequestLoggingMiddleware(app), http())
        assert "request_id" not in current()

    run(play())
    assert {*seen[0], seen[1]} == {records[0].request_id}


def test_requests_side_by_side_keep_their_ids(records: list[Any]) -> None:
    seen: dict[str, set[str]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(5):
            seen.setdefault(scope["path"], set()).add(current()["request_id"])
            await asyncio.sleep(0)
        await send(START)
        await send(piece(more=False))

    async def play() -> None:
        wrapped = RequestLoggingMiddleware(app)
        await asyncio.gather(*(Server().serve(wrapped, http(f"/{number}")) for number in range(10)))

    run(play())
    assert all(len(ids) == 1 for ids in seen.values())
    assert {record.path: {record.request_id} for record in records} == seen


def test_the_ids_of_trusted_peers_are_used(records: list[Any]) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-ID": "outer", "traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": "a=b"}
    names: list[set[bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        names.append({name for name, _ in scope["headers"]})
        await send(START)
        await send(piece(more=False))

    wrapped = RequestLoggingMiddleware(app, trust=ProxyTrust(["192.0.2.7"]))
    call(wrapped, http(headers=headers))
    call(wrapped, http(headers=headers, client=("192.0.2.9", 1)))
    inside, outside = records
    assert (inside.request_id, inside.trace_id) == ("outer", trace)
    assert outside.request_id != "outer"
    assert outside.trace_id != trace
    assert b"traceparent" in names[0]
    assert not {b"traceparent", b"tracestate"} & names[1]


def test_the_route_of_the_framework_is_named(records: list[Any]) -> None:
    class Route:
        path = "/items/{item}"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route()
        await send(START)
        await send(piece(more=False))

    call(RequestLoggingMiddleware(app), http("/items/7"))
    assert records[0].route == "/items/{item}"


def test_a_log_that_fails_breaks_no_response(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(logging.Logger):
        def handle(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("the cause")

    server = call(RequestLoggingMiddleware(app, logger=Broken("x")), http())
    assert server.sent[0]["status"] == 500
    assert "KeyError: 'the cause'" in capsys.readouterr().err


def test_a_wsgi_application_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigurationError, match=r"harden_wsgi|mks_hardening\.wsgi") as refused:
        RequestLoggingMiddleware(lambda environ, start_response: [])  # type: ignore[arg-type, misc]
    assert refused.value.parameter == "app"
