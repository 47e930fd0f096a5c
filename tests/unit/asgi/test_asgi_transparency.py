"""What passes through every class, and through all together, as if they were not there."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from asgi_server import Server, call, http, run, socket
from asgi_wrappers import STACKS, WRAPPERS
from mks_hardening import asgi
from tables import faulty_rows

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"hello"}
ORIGIN = "https://www.example.com"
CONNECT = {"type": "websocket.connect"}
A, B = b"a=b; SameSite=None;HttpOnly ;secure", b"c=d; Secure; HttpOnly; SameSite=Lax; Partitioned"
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture(params=STACKS)
def wrap(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return STACKS[request.param]


def sending(*messages: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def sent_by(wrap: Any, *messages: Any, scope: Any = None) -> list[Any]:
    """What reaches the server; header fields that were added are left out."""
    server = call(wrap(sending(*messages)), scope or http())
    shown = []
    for message in server.sent:
        fields = [pair for pair in message.get("headers", ()) if pair[0].lower() == b"content-type"]
        shown.append({**message, "headers": fields} if "headers" in message else message)
    return shown


def test_every_class_is_in_the_table() -> None:
    assert {name for name in asgi.__all__ if name.endswith("Middleware")} == {*WRAPPERS}


# --- scopes


def test_scopes_of_other_types_pass_untouched(wrap: Any) -> None:
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.extend(given)

    given = ({"type": "mqtt"}, lambda: None, lambda message: None)
    run(wrap(app)(*given))
    assert all(left is right for left, right in zip(seen, given, strict=True))


def test_the_lifespan_passes(wrap: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})

    server = call(
        wrap(app), {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert server.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_errors_of_the_lifespan_reach_the_server(wrap: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("no lifespan here")

    with pytest.raises(KeyError):
        call(wrap(app), {"type": "lifespan"})


def test_a_startup_that_fails_is_reported(wrap: Any) -> None:
    failed = {"type": "lifespan.startup.failed", "message": "no database"}
    assert call(wrap(sending(failed)), {"type": "lifespan"}).sent == [failed]


@pytest.mark.parametrize("make", [http, socket])
def test_the_scope_of_the_server_is_not_modified(wrap: Any, make: Any) -> None:
    scope = make(
        headers={"Cookie": "a=b", "Origin": ORIGIN, "X-Forwarded-For": "203.0.113.9", "X-Request-ID": "x"},
        state={"a": []},
    )
    before = {**scope, "headers": list(scope["headers"]), "extensions": {**scope["extensions"]}}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        scope["mine"] = 1
        kind = "http.response.start" if scope["type"] == "http" else "websocket.close"
        await send({"type": kind, "status": 200} if kind == "http.response.start" else {"type": kind})
        if scope["type"] == "http":
            await send(BODY)

    call(wrap(app), scope)
    scope.pop("mine", None)  # a class that adds nothing hands on the same object
    assert scope == before
    assert seen[0]["state"] is scope["state"]
    assert seen[0]["extensions"] is scope["extensions"]


# --- heads


PAIR = (b"content-type", b"text/plain")
FIELDS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "empty": list,
    "empty tuple": tuple,
    "list": lambda: [PAIR],
    "tuple": lambda: (PAIR,),
    "lists": lambda: [[*PAIR]],
    "generator": lambda: (pair for pair in [PAIR]),
    "iterator": lambda: iter([[*PAIR]]),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_head_may_have_any_iterable_of_fields_or_none(wrap: Any, method: str) -> None:
    def check(form: str) -> None:
        headers = FIELDS[form]()
        start = {"type": "http.response.start", "status": 200}
        if headers is not None:
            start["headers"] = headers
        scope = http(method=method, headers={"sec-fetch-site": "same-origin"})
        server = call(wrap(sending(start, BODY)), scope)
        assert server.types == [START["type"], BODY["type"]]
        assert server.header("content-type") == (
            None if form in {"none", "empty", "empty tuple"} else "text/plain"
        )

    assert faulty_rows(FIELDS, check) == {}


def test_what_the_application_keeps_is_not_modified(wrap: Any) -> None:
    fields = [(b"content-type", b"text/plain"), (b"set-cookie", A), (b"set-cookie", B)]
    start, body = {**START, "headers": fields}, dict(BODY)
    before = list(fields), dict(start), dict(body)
    for _ in range(2):
        server = call(wrap(sending(start, body)), http())
        cookies = [value for name, value in server.sent[0]["headers"] if name == b"set-cookie"]
        assert cookies[:2] == [A, B]
    assert (fields, start, body) == before
    assert start["headers"] is fields


def test_unknown_keys_of_messages_stay(wrap: Any) -> None:
    messages = [{**START, "trailers": True, "x": 1}, {**BODY, "y": 2}]
    trailers = {
        "type": "http.response.trailers",
        "headers": [(b"content-type", b"x")],
        "more_trailers": False,
    }
    assert sent_by(wrap, *messages, trailers) == [*messages, trailers]


# --- messages


@pytest.mark.parametrize(
    "messages",
    [
        [START, BODY],
        [START, {"type": "http.response.body"}],
        [START, {**BODY, "more_body": True}, {**BODY, "body": b"", "more_body": True}, BODY],
        [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
        [
            START,
            {"type": "http.response.zerocopysend", "file": 3, "offset": 0, "count": 9, "more_body": True},
            BODY,
        ],
        [START, {"type": "http.response.zerocopysend", "file": 3}],
        [{"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}, START, BODY],
        [START, {"type": "http.response.push", "path": "/a", "headers": []}, BODY],
        [{"type": "http.response.debug", "info": {"template": 1}}, START, BODY],
        [START, {"type": "http.response.magic", "of": "tomorrow"}, BODY],
    ],
    ids=[
        "one",
        "no body",
        "many",
        "path",
        "zero copy",
        "zero copy alone",
        "hint",
        "push",
        "debug",
        "unknown",
    ],
)
def test_one_message_in_is_one_message_out(wrap: Any, messages: list[Any]) -> None:
    assert sent_by(wrap, *messages) == messages


def test_nothing_is_held_back(wrap: Any) -> None:
    """Neither the head nor any piece of the body."""

    async def play() -> None:
        server = Server()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for number, message in enumerate([START, *[{**BODY, "more_body": True}] * 3, BODY]):
                await send(message)
                assert len(server.sent) == number + 1

        await server.serve(wrap(app), http())

    run(play())


def test_websockets_pass(wrap: Any) -> None:
    messages = [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"content-type", b"x")]},
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "bytes": b"b", "text": None},
        {"type": "websocket.magic"},
        {"type": "websocket.close", "code": 4000, "reason": "done"},
    ]
    assert sent_by(wrap, *messages, scope=socket()) == messages


def test_a_denial_response_of_the_application_passes(wrap: Any) -> None:
    messages = [
        {"type": "websocket.http.response.start", "status": 418, "headers": [(b"content-type", b"x")]},
        {"type": "websocket.http.response.body", "body": b"a", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"b"},
    ]
    assert sent_by(wrap, *messages, scope=socket()) == messages


# --- tasks, context and errors


def test_it_runs_in_the_same_task_and_context(wrap: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([asyncio.current_task(), VARIABLE.get(), len(asyncio.all_tasks())])
        VARIABLE.set("inside")
        await send(START)
        await send(BODY)

    async def play() -> None:
        VARIABLE.set("outside")
        await Server().serve(wrap(app), http())
        assert seen == [asyncio.current_task(), "outside", 1]
        assert VARIABLE.get() == "inside"

    run(play())


@pytest.mark.parametrize("make", [http, socket])
@pytest.mark.parametrize("begun", [False, True])
def test_a_cancellation_reaches_both_sides(wrap: Any, begun: bool, make: Any) -> None:
    async def play() -> None:
        server, waiting, seen = Server(CONNECT), asyncio.Event(), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if begun:
                await send(START if scope["type"] == "http" else {"type": "websocket.accept"})
            waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.create_task(server.serve(wrap(app), make()))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cancelled"]
        assert len(server.sent) == begun
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(play())


@pytest.mark.parametrize("kind", [OSError, ConnectionResetError, asyncio.CancelledError])
@pytest.mark.parametrize("at", [0, 1])
def test_an_error_of_send_reaches_both_sides(wrap: Any, kind: type[BaseException], at: int) -> None:
    """The client has left, says the server (ASGI 2.4)."""
    seen: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in (START, {**BODY, "more_body": True}):
            try:
                await send(message)
            except BaseException as error:
                seen.append(error)
                raise

    async def play() -> Server:
        server = Server()

        def fail(message: Any) -> None:
            if len(server.sent) == at + 1:
                raise kind("gone")

        server.on_send = fail
        with pytest.raises(kind):
            await server.serve(wrap(app), http())
        return server

    server = run(play())
    assert [type(error) for error in seen] == [kind]
    assert len(server.sent) == at + 1


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_of_the_application_reaches_the_server(wrap: Any, begun: bool) -> None:
    """Before the head, the request log answers it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send(START)
        raise KeyError("mine")

    async def play() -> list[Any]:
        server = Server()
        try:
            await server.serve(wrap(app), http())
        except KeyError:
            return [message.get("status") for message in server.sent]
        assert server.sent[0]["status"] == 500
        return ["answered"]

    reached = run(play())
    assert reached == [200] if begun else reached in ([], ["answered"], [500, None])


# --- bodies of requests


def pieces(*bodies: bytes) -> list[Any]:
    return [
        {"type": "http.request", "body": body, "more_body": number < len(bodies) - 1}
        for number, body in enumerate(bodies)
    ]


POST = {"method": "POST", "headers": {"Content-Type": "application/octet-stream", "Content-Length": "6"}}


def test_uploads_stream(wrap: Any) -> None:
    async def play() -> None:
        server, seen = Server(*pieces(b"ab", b"cd", b"ef")), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for number in range(3):
                message = await receive()
                seen.append((message["body"], message["more_body"]))
                assert server.receives == number + 1
            await send(START)
            await send(BODY)

        await server.serve(wrap(app), http(**POST))
        assert seen == [(b"ab", True), (b"cd", True), (b"ef", False)]

    run(play())


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/x-www-form-urlencoded"])
def test_a_body_that_nobody_reads_stays_unread(wrap: Any, kind: str) -> None:
    scope = http(method="POST", headers={"Content-Type": kind, "Content-Length": "6"})
    server = call(wrap(sending(START, BODY)), scope, *pieces(b"ab", b"cd", b"ef"))
    assert server.receives == 0


def test_a_disconnect_is_a_disconnect_again_and_again(wrap: Any) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([(await receive())["type"] for _ in range(4)])
        await send(START)
        await send(BODY)

    server = call(wrap(app), http(**POST), *pieces(b"abc", b"")[:1], {"type": "http.disconnect"})
    assert seen == ["http.request", *["http.disconnect"] * 3]
    assert server.types == [START["type"], BODY["type"]]


def test_nothing_is_sent_after_the_end(wrap: Any) -> None:
    """Background work that fails later."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        raise KeyError("in the background")

    async def play() -> None:
        server = Server()
        with pytest.raises(KeyError):
            await server.serve(wrap(app), http())
        assert server.types == [START["type"], BODY["type"]]

    run(play())
