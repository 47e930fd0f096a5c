"""Forms whose token is in the body: what is read, what is not, and what the application receives afterwards."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from asgi_server import Server, http, run
from mks_hardening.asgi import CSRFMiddleware

FORM = "application/x-www-form-urlencoded"
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b""}
GONE = {"type": "http.disconnect"}


class Session:
    csrf_token = "secret of mine"


def token() -> str:
    """A valid token, as a page shows it."""
    shown: list[str] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        shown.append(str(scope["mks_hardening.csrf_token"]))
        await send(START)
        await send(BODY)

    run(Server().serve(CSRFMiddleware(page), http(**{"mks_hardening.session": Session()})))
    return shown[0]


def pieces(*bodies: bytes, complete: bool = True) -> list[dict[str, Any]]:
    last = len(bodies) - 1 if complete else len(bodies)
    return [
        {"type": "http.request", "body": body, "more_body": number < last}
        for number, body in enumerate(bodies)
    ]


def post(
    *requests: Any, length: int | str | None = None, kind: str = FORM, more: int = 0, **options: Any
) -> tuple[Server, list[Any]]:
    """One POST; what the application received, with ``more`` calls of ``receive`` after the body."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            received.append(await receive())
            if not received[-1].get("more_body"):
                break
        received.extend([await receive() for _ in range(more)])
        await send(START)
        await send(BODY)

    headers = {"Cookie": "session=1", "Content-Type": kind}
    if length is not None:
        headers["Content-Length"] = str(length)
    scope = http(method="POST", headers=headers, **{"mks_hardening.session": Session()})

    async def play() -> Server:
        server = Server(*requests)
        async with asyncio.timeout(5):
            await server.serve(CSRFMiddleware(app, **options), scope)
        return server

    return run(play()), received


def status(server: Server) -> int:
    return int(server.sent[0]["status"])


@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 20), (0, 0, 5)])
def test_the_application_receives_the_same_messages(cuts: tuple[int, ...]) -> None:
    body = f"a=1&csrf_token={token()}&b=2".encode()
    edges = [0, *cuts, len(body)]
    messages = pieces(*[body[left:right] for left, right in pairwise(edges)])
    server, received = post(*messages, length=len(body))
    assert status(server) == 200
    assert received == messages
    assert server.receives == len(messages)


def test_a_message_may_omit_the_keys_that_have_defaults() -> None:
    body = f"csrf_token={token()}".encode()
    messages = [
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": body},  # the last one, by default
    ]
    server, received = post(*messages, length=len(body))
    assert (status(server), received) == (200, messages)


def test_after_the_body_the_application_waits_for_the_server() -> None:
    body = f"csrf_token={token()}".encode()
    server, received = post(*pieces(body), GONE, length=len(body), more=2)
    assert status(server) == 200
    assert received[1:] == [GONE, GONE]


def test_a_form_without_a_length_is_not_read() -> None:
    """Chunked: it may be endless."""
    server, received = post(*pieces(f"csrf_token={token()}".encode()))
    assert (status(server), received, server.receives) == (403, [], 0)


@pytest.mark.parametrize("length", ["-1", "1e3", "", "9" * 30, "5, 5", "²".encode().decode("latin-1")])
def test_a_length_that_is_none_is_not_read(length: str) -> None:
    server, received = post(*pieces(f"csrf_token={token()}".encode()), length=length)
    assert (status(server), received, server.receives) == (403, [], 0)


@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_of_a_form(more: int) -> None:
    body = f"csrf_token={token()}".encode()
    server, _ = post(*pieces(body), length=len(body), max_form_bytes=len(body) - more)
    assert (status(server), server.receives) == ((403, 0) if more else (200, 1))


def test_more_bytes_than_declared_are_not_collected() -> None:
    """A server should not hand them on; nothing is read beyond the first message too many."""
    body = f"csrf_token={token()}".encode()
    flood = pieces(body, *[b"x" * 1000] * 100)
    server, received = post(*flood, length=len(body))
    assert (status(server), received) == (403, [])
    assert server.receives == 2


def test_fewer_bytes_than_declared_are_a_form_all_the_same() -> None:
    body = f"csrf_token={token()}".encode()
    server, received = post(*pieces(body), length=len(body) + 50)
    assert status(server) == 200
    assert received == pieces(body)


def test_a_client_that_leaves_in_the_middle_has_sent_no_form() -> None:
    body = f"csrf_token={token()}&".encode()
    server, received = post(*pieces(body, complete=False), GONE, length=len(body) + 10)
    assert (status(server), received) == (403, [])


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data", ""])
def test_other_bodies_are_not_read(kind: str) -> None:
    body = f"csrf_token={token()}".encode()
    server, received = post(*pieces(body), length=len(body), kind=kind)
    assert (status(server), received) == (403, [])
    assert server.receives <= (kind == "multipart/form-data")


def test_a_token_in_the_header_leaves_the_body_unread() -> None:
    async def play() -> None:
        headers = {"Cookie": "session=1", "Content-Type": FORM, "Content-Length": "3", "X-CSRF-Token": given}
        server = Server(*pieces(b"a=1"))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert server.receives == 0
            await send(START)
            await send(BODY)

        scope = http(method="POST", headers=headers, **{"mks_hardening.session": Session()})
        await server.serve(CSRFMiddleware(app), scope)
        assert status(server) == 200

    given = token()
    run(play())


def test_a_cancellation_while_the_form_arrives_reaches_the_server() -> None:
    async def play() -> None:
        server = Server(*pieces(b"csrf_", complete=False))
        headers = {"Cookie": "session=1", "Content-Type": FORM, "Content-Length": "50"}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError

        task = asyncio.create_task(server.serve(CSRFMiddleware(app), http(method="POST", headers=headers)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sent == []

    run(play())
