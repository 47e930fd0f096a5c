"""Bodies that are too long, in the middle of everything else that an application does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_server import Server, call, hello, http
from mks_hardening.asgi import (
    CSRFMiddleware,
    RequestLimits,
    RequestLimitsMiddleware,
    RequestLoggingMiddleware,
)
from mks_hardening.exceptions import RequestLimitError

START = {"type": "http.response.start", "status": 200, "headers": []}
HINT = {"type": "http.response.early_hint", "links": []}


def upload(*bodies: bytes) -> list[dict[str, Any]]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": n < last} for n, body in enumerate(bodies)]


def chunked(**headers: str) -> dict[str, Any]:
    return http(method="POST", headers={"Transfer-Encoding": "chunked", **headers})


def limited(app: Any) -> RequestLimitsMiddleware:
    return RequestLimitsMiddleware(app, limits=RequestLimits(body=10))


async def reads(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send({"type": "http.response.body", "body": b"read"})


@pytest.mark.parametrize(
    ("bodies", "status"),
    [((b"12345", b"67890"), 200), ((b"12345", b"67890", b"1"), 413), ((b"x" * 11,), 413)],
)
def test_a_body_without_a_length_is_counted(bodies: tuple[bytes, ...], status: int) -> None:
    server = call(limited(reads), chunked(), *upload(*bodies))
    assert server.sent[0]["status"] == status


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"path": "/ああ", "raw_path": b"/%E3%81%82%E3%81%82", "query_string": b"p"}, 200),  # 20 bytes
        ({"path": "/ああ", "raw_path": b"/%E3%81%82%E3%81%82", "query_string": b"pp"}, 414),
        ({"path": "/" + "あ" * 6, "raw_path": None, "query_string": b"p"}, 200),
        ({"path": "/" + "あ" * 6, "raw_path": b"", "query_string": b"pp"}, 414),
        ({"path": "/" + "a" * 19, "raw_path": None, "query_string": None}, 200),
        ({"path": "/" + "\ud800" * 20, "raw_path": None}, 414),
    ],
)
def test_the_target_is_measured_as_the_client_sent_it(scope: dict[str, Any], status: int) -> None:
    """Servers may omit ``raw_path``; then the decoded path counts."""
    app = RequestLimitsMiddleware(hello, limits=RequestLimits(target_bytes=20))
    assert call(app, {**http(), **scope}).sent[0]["status"] == status


def test_an_early_hint_is_no_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HINT)
        await reads(scope, receive, send)

    server = call(limited(app), chunked(), *upload(b"x" * 11))
    assert [message.get("status") for message in server.sent] == [None, 413, None]


@pytest.mark.parametrize("swallows", [True, False])
def test_what_the_application_makes_of_the_error_does_not_matter(swallows: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(RequestLimitError):
            await receive()
        if not swallows:
            raise KeyError
        await send(START)
        await send({"type": "http.response.body", "body": b"cut"})

    server = call(limited(app), chunked(), *upload(b"x" * 11))
    assert server.sent[0]["status"] == 413
    assert json.loads(server.sent[1]["body"])["status"] == 413


def test_a_response_that_has_begun_goes_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with pytest.raises(RequestLimitError):
            await receive()
        await send({"type": "http.response.body", "body": b"end"})

    server = call(limited(app), chunked(), *upload(b"x" * 11))
    assert [message.get("body") for message in server.sent] == [None, b"end"]


def test_a_form_that_another_middleware_reads_is_counted_too(caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Cookie": "a=b", "Content-Type": "application/x-www-form-urlencoded", "Content-Length": "5"}
    app = RequestLoggingMiddleware(limited(CSRFMiddleware(reads)))
    with caplog.at_level("INFO", "mks_hardening.request"):
        server = call(app, http(method="POST", headers=headers), *upload(b"12345", b"x" * 20))
    assert server.sent[0]["status"] == 413
    assert vars(caplog.records[-1])["refused_by"] == "request_limits"
    assert vars(caplog.records[-1])["outcome"] == "ok"


def test_the_rest_of_a_refused_body_is_discarded_before_the_response_ends() -> None:
    server: Server = call(limited(reads), chunked(), *upload(*[b"x" * 6] * 50))
    assert (server.sent[0]["status"], server.receives) == (413, 50)
    assert server.header("connection") == "close"
    first, last = (message["body"] for message in server.sent[1:])
    assert (json.loads(first + last)["limit"], len(last)) == (10, 1)


@pytest.mark.parametrize(
    ("scope", "receives"),
    [
        (chunked(), 66),  # two by the application, and 64 MiB
        (http(method="POST", headers={"Content-Length": "9" * 30}), 64),
        (http(method="POST", headers={"Content-Length": "3000000"}), 3),
        (chunked(Expect="100-continue"), 2),
        (http(method="POST", headers={"Content-Length": "11", "Transfer-Encoding": "chunked"}), 0),
        (http(method="POST", headers={"Content-Length": "-11"}), 0),
        (http(method="HEAD", headers={"Content-Length": "11"}), 0),
        ({**chunked(), "http_version": "2"}, 2),
    ],
)
def test_a_body_is_discarded_up_to_a_bound(scope: dict[str, Any], receives: int) -> None:
    endless = [{"type": "http.request", "body": b"x" * 2**20, "more_body": True}] * 70

    async def reads_two(scope: Any, receive: Any, send: Any) -> None:
        endless[0]["body"] = b"1234567890"
        await receive()
        endless[0]["body"] = b"x" * 2**20
        await receive()

    server: Server = call(limited(reads_two), scope, *endless)
    assert server.sent[0]["status"] in (400, 413)
    assert server.receives == receives


def test_a_client_that_leaves_ends_the_discarding() -> None:
    server: Server = call(limited(reads), chunked(), *upload(b"x" * 11, b"")[:1], {"type": "http.disconnect"})
    assert (server.sent[0]["status"], server.receives) == (413, 2)
    assert json.loads(b"".join(message["body"] for message in server.sent[1:]))["limit"] == 10
