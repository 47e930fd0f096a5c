"""``call_asgi``: what it sends, what it returns, and which violations of ASGI it notices."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.testing import call_asgi

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"x"}
ACCEPT = {"type": "websocket.accept"}


def sending(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def test_a_request_as_servers_describe_it() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope, await receive()])
        await send({**START, "status": 201, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
        await send({**BODY, "more_body": True})
        await send(BODY)
        seen.append(await receive())

    answer = call_asgi(
        app, "/あ/%", method="POST", query="a=1", headers={"X-Key": "k"}, body=b"sent", scope={"client": None}
    )
    assert (answer.status, answer.body) == (201, b"xx")
    assert answer.header("X-B") is None
    with pytest.raises(AssertionError, match="2 times"):
        answer.header("X-A")
    scope, request, after = seen
    assert scope is answer.scope
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/あ/%", b"/%E3%81%82/%25", b"a=1")
    assert scope["headers"] == [(b"host", b"localhost"), (b"x-key", b"k"), (b"content-length", b"4")]
    assert "client" not in scope
    assert (request["body"], after) == (b"sent", {"type": "http.disconnect"})


def test_the_scope_is_that_of_the_wrapped_application() -> None:
    def wrap(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "mine": 1}, receive, send)

        return wrapped

    assert call_asgi(sending(START, BODY), wrap=wrap).scope["mine"] == 1


def test_a_websocket() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["type"], scope["scheme"]) == ("websocket", "wss")
        assert (await receive())["type"] == "websocket.connect"
        await send({**ACCEPT, "headers": [(b"x-a", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        assert message["code"] == 1000

    answer = call_asgi(echo, scheme="https", websocket=["a", b"b"])
    assert (answer.status, answer.received, answer.close_code) == (101, ["a", b"b"], None)
    assert answer.header("X-A") == "1"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"type": "websocket.close", "code": 1008}], (403, 1008, b"")),
        ([ACCEPT, {"type": "websocket.close"}], (101, 1000, b"")),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": []},
                {"type": "websocket.http.response.body", "body": b"no"},
            ],
            (401, None, b"no"),
        ),
    ],
)
def test_the_end_of_a_websocket(messages: list[Any], expected: tuple[int, int | None, bytes]) -> None:
    answer = call_asgi(sending(*messages), websocket=[])
    assert (answer.status, answer.close_code, answer.body) == expected


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [START],
        [START, {**BODY, "more_body": True}],
        [BODY],
        [START, START],
        [START, BODY, BODY],
        [{**START, "status": 99}],
        [{**START, "status": "200"}],
        [{**START, "headers": [("x", "y")]}],
        [{**START, "headers": [(b"X-Upper", b"y")]}],
        [START, {**BODY, "body": "text"}],
        [START, {"type": "http.response.pathsend", "path": "/x"}],
        [START, BODY, {"type": "http.response.trailers", "headers": []}],
        [{"type": "http.disconnect"}],
        [ACCEPT],
    ],
    ids=lambda messages: "-".join(message["type"].split(".")[-1] for message in messages) or "nothing",
)
def test_violations_of_the_protocol(messages: list[Any]) -> None:
    with pytest.raises(AssertionError):
        call_asgi(sending(*messages))


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [ACCEPT, ACCEPT],
        [{"type": "websocket.send", "text": "x"}],
        [ACCEPT, {"type": "websocket.send", "text": "x", "bytes": b"y"}],
        [ACCEPT, {"type": "websocket.send"}],
        [ACCEPT, {"type": "websocket.close"}, {"type": "websocket.send", "text": "x"}],
        [ACCEPT, {"type": "websocket.receive"}],
        [START, BODY],
    ],
    ids=lambda messages: "-".join(message["type"].split(".")[-1] for message in messages) or "nothing",
)
def test_violations_on_a_websocket(messages: list[Any]) -> None:
    with pytest.raises(AssertionError):
        call_asgi(sending(*messages), websocket=[])


def test_extensions_are_allowed_where_the_server_has_them() -> None:
    def offered(*names: str) -> dict[str, Any]:
        return {"extensions": {f"http.response.{name}": {} for name in names}}

    sent = {"type": "http.response.pathsend", "path": "/x"}
    assert call_asgi(sending(START, sent), scope=offered("pathsend")).status == 200
    hint = {"type": "http.response.early_hint", "links": []}
    trailers = {"type": "http.response.trailers", "headers": []}
    announced = {**START, "trailers": True, "headers": (pair for pair in [(b"a", b"b")])}
    answer = call_asgi(sending(hint, announced, BODY, trailers), scope=offered("early_hint", "trailers"))
    assert answer.headers == [("a", "b")]


@pytest.mark.parametrize("error", [ValueError, TimeoutError, OSError])
def test_errors_of_the_application_are_raised(error: type[Exception]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(error):
        call_asgi(app)


def test_a_response_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    monkeypatch.setattr("mks_hardening.testing.asgi_call._LONGEST", 0.01)
    with pytest.raises(AssertionError, match="no complete response within"):
        call_asgi(app)
