"""What the response cache does with messages: files, trailers, hints, clients that leave, cancelled tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

from mks_hardening.asgi import CacheRule, ResponseCacheMiddleware
from mks_hardening.cache import MemoryCache, RedisCache
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock

Message = dict[str, Any]
View = Callable[[Message, Any, Any], Awaitable[None]]
START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test on an event loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **options), 60))

    return run


async def waiting(stack: Any, requests: int) -> None:
    """Return when so many requests wait for another one."""
    while stack._responses._flights._waiting < requests:  # noqa: ASYNC110 - they set no event
        await asyncio.sleep(0)


def scope(**changes: Any) -> Message:
    return {
        "type": "http",
        "method": "GET",
        "path": "/page",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"example.com")],
        "server": ("example.com", 80),
        **changes,
    }


class Client:
    """Receives the messages of one request."""

    def __init__(self, stack: Any, *, fails_after: int | None = None, **changes: Any) -> None:
        self.stack = stack
        self.scope = scope(**changes)
        self.sent: list[Message] = []
        self.fails_after = fails_after

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self.fails_after is not None and len(self.sent) > self.fails_after:
            raise OSError("the client has left")

    async def ask(self) -> bytes:
        await self.stack(self.scope, self.receive, self.send)
        return b"".join(each.get("body", b"") for each in self.sent)


class App:
    """Sends the messages of a list; counts its calls."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages or (START, {"type": "http.response.body", "body": b"page"})
        self.calls = 0

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.calls += 1
        for message in self.messages:
            await send({**message})


def cached(app: Any, cache: Any = None, **options: Any) -> ResponseCacheMiddleware:
    kept = MemoryCache() if cache is None else cache
    rules = options.pop("rules", [CacheRule("/*", ttl=60)])
    return ResponseCacheMiddleware(app, cache=kept, rules=rules, **options)


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


@on_loop
async def test_a_stream_passes_message_by_message_and_is_stored_whole() -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>"]}
    app = App(hint, START, body(b"a", more=True), body(b"", more=True), body(b"b"))
    stack = cached(app)
    first, second = Client(stack), Client(stack)
    assert await first.ask() == b"ab"
    assert first.sent == [{**each} for each in app.messages]
    assert await second.ask() == b"ab"
    assert [each["type"] for each in second.sent] == ["http.response.start", "http.response.body"]
    assert (b"age", b"0") in second.sent[0]["headers"]
    assert app.calls == 1


@pytest.mark.parametrize(
    "messages",
    [
        (START, {"type": "http.response.pathsend", "path": "/etc/hostname"}),
        (START, {"type": "http.response.zerocopysend", "file": 3, "more_body": False}),
        (
            {**START, "trailers": True},
            body(b"page"),
            {"type": "http.response.trailers", "headers": [(b"x", b"y")]},
        ),
        (START, body(b"half", more=True)),
        (START,),
        (),
    ],
    ids=["pathsend", "zerocopysend", "trailers", "half a body", "no body", "nothing"],
)
@on_loop
async def test_what_is_not_a_whole_body_passes_and_is_not_stored(messages: tuple[Message, ...]) -> None:
    app = App()
    app.messages = messages
    stack = cached(app)
    for _ in range(2):
        client = Client(stack)
        await client.ask()
        assert client.sent == [{**each} for each in messages]
    assert app.calls == 2


@on_loop
async def test_a_send_that_fails_reaches_the_application_and_nothing_is_stored() -> None:
    app = App(START, body(b"a", more=True), body(b"b"))
    stack = cached(app)
    with pytest.raises(OSError, match="has left"):
        await Client(stack, fails_after=1).ask()
    assert await Client(stack).ask() == b"ab"
    assert app.calls == 2


@on_loop
async def test_a_cancelled_request_stores_nothing_and_wakes_those_who_wait() -> None:
    entered = asyncio.Event()
    calls = 0

    async def app(scope: Message, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send(START)
        await send(body(b"half", more=True))
        entered.set()
        if calls == 1:
            await asyncio.Event().wait()
        await send(body(b" whole"))

    stack = cached(app, compute_wait=30)
    first = asyncio.create_task(Client(stack).ask())
    await entered.wait()
    second = asyncio.create_task(Client(stack).ask())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == b"half whole"
    assert calls == 2


@pytest.mark.parametrize("leaves", ["send fails", "cancelled"])
@on_loop
async def test_after_a_client_has_left_requests_still_share_one_response(leaves: str) -> None:
    """The response could have been stored: the next ones are worth waiting for."""
    entered, may_go_on = asyncio.Event(), asyncio.Event()
    calls = 0

    async def app(scope: Message, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        entered.set()
        if calls > 1 or leaves == "cancelled":
            await may_go_on.wait()
        await send(START)
        await send(body(b"page"))

    stack = cached(app, compute_wait=30)
    first = asyncio.create_task(Client(stack, fails_after=0).ask())
    await entered.wait()
    if leaves == "cancelled":
        first.cancel()
    with pytest.raises((OSError, asyncio.CancelledError)):
        await first
    tasks = [asyncio.create_task(Client(stack).ask()) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    may_go_on.set()
    assert set(await asyncio.gather(*tasks)) == {b"page"}
    assert calls == 2


@on_loop
async def test_a_client_that_has_the_page_gets_304_without_the_body_or_trailers_of_the_application() -> None:
    start = {**START, "headers": [(b"etag", b'"1"'), (b"content-type", b"text/plain")], "trailers": True}
    trailers = {"type": "http.response.trailers", "headers": [(b"x", b"y")]}
    stack = cached(App(start, body(b"pa", more=True), body(b"ge"), trailers))
    client = Client(stack, headers=[(b"host", b"example.com"), (b"if-none-match", b'"1"')])
    assert await client.ask() == b""
    head, end = client.sent
    assert (head["type"], head["status"], head.get("trailers", False)) == ("http.response.start", 304, False)
    assert end == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize("size", [1_048_576, 1_048_577])
@on_loop
async def test_by_default_bodies_of_up_to_a_mebibyte_are_stored(size: int) -> None:
    app = App(START, body(b"x" * size))
    stack = cached(app)
    for _ in range(2):
        assert len(await Client(stack).ask()) == size
    assert app.calls == (1 if size == 1_048_576 else 2)


@pytest.mark.parametrize("requests", [100])
@on_loop
async def test_a_hundred_cold_requests_call_the_application_once(requests: int) -> None:
    calls = 0
    may_go_on = asyncio.Event()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await may_go_on.wait()
        await send(START)
        await send(body(b"page"))

    stack = cached(app, compute_wait=30)
    tasks = [asyncio.create_task(Client(stack).ask()) for _ in range(requests)]
    await waiting(stack, requests - 1)
    may_go_on.set()
    assert set(await asyncio.gather(*tasks)) == {b"page"}
    assert calls == 1


@on_loop
async def test_a_cancelled_waiting_request_leaves_the_others_alone() -> None:
    may_go_on = asyncio.Event()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await may_go_on.wait()
        await send(START)
        await send(body(b"page"))

    stack = cached(app, compute_wait=30)
    tasks = [asyncio.create_task(Client(stack).ask()) for _ in range(3)]
    await waiting(stack, 2)
    tasks[1].cancel()
    await asyncio.sleep(0)
    may_go_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [found[0], found[2]] == [b"page", b"page"]
    assert stack._responses._flights._waiting == 0


@on_loop
async def test_the_new_response_is_made_in_the_same_task_after_the_last_byte() -> None:
    clock = FrozenClock()
    tasks: list[Any] = []
    received: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        received.append(await receive())
        await send(START)
        await send(body(f"page {len(tasks)}".encode()))

    stack = cached(
        app,
        MemoryCache(clock=clock, jitter=0),
        rules=[CacheRule("/*", ttl=60, stale_while_revalidate=60)],
        clock=clock,
    )
    assert await Client(stack).ask() == b"page 1"
    clock.advance(70)
    stale = Client(stack)
    assert await stale.ask() == b"page 1"
    assert len(stale.sent) == 2
    assert tasks == [asyncio.current_task()] * 2
    assert received[1] == {"type": "http.request", "body": b"", "more_body": False}
    assert await Client(stack).ask() == b"page 2"


@on_loop
async def test_a_client_that_leaves_a_stale_response_makes_no_new_one() -> None:
    clock, app = FrozenClock(), App()
    rules = [CacheRule("/*", ttl=60, stale_while_revalidate=60)]
    stack = cached(app, MemoryCache(clock=clock, jitter=0), rules=rules, clock=clock)
    await Client(stack).ask()
    clock.advance(70)
    with pytest.raises(OSError, match="has left"):
        await Client(stack, fails_after=1).ask()
    assert app.calls == 1


@on_loop
async def test_an_error_page_that_is_sent_before_the_exception_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As Starlette does: a 500, then the exception for the log of the server."""
    clock, fails = FrozenClock(), False

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({**START, "status": 500} if fails else START)
        await send(body(b"page"))
        if fails:
            raise ZeroDivisionError

    rules = [CacheRule("/*", ttl=60, stale_if_error=60)]
    stack = cached(app, MemoryCache(clock=clock, jitter=0), rules=rules, clock=clock)
    await Client(stack).ask()
    clock.advance(70)
    fails = True
    client = Client(stack)
    assert (await client.ask(), client.sent[0]["status"]) == (b"page", 200)
    assert "ZeroDivisionError" in caplog.text


@on_loop
async def test_a_client_that_leaves_the_replaced_response_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FrozenClock()
    app = App()
    rules = [CacheRule("/*", ttl=60, stale_if_error=60)]
    stack = cached(app, MemoryCache(clock=clock, jitter=0), rules=rules, clock=clock)
    await Client(stack).ask()
    clock.advance(70)
    app.messages = ({**START, "status": 500}, body(b"trouble"))
    with pytest.raises(OSError, match="has left"):
        await Client(stack, fails_after=0).ask()
    assert "exception" not in caplog.text


@on_loop
async def test_other_connections_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    stack = cached(app)
    for kind in ("websocket", "lifespan", "something"):
        given = {"type": kind}
        client = Client(stack)
        await stack(given, client.receive, client.send)
        assert seen.pop() == (given, client.receive, client.send)
        assert list(given) == ["type"]


@on_loop
async def test_the_scope_of_the_server_is_not_modified() -> None:
    stack = cached(App())
    conditional = Client(stack, headers=[(b"host", b"example.com"), (b"if-none-match", b'"x"')])
    before = {**conditional.scope, "headers": [*conditional.scope["headers"]]}
    await conditional.ask()
    assert conditional.scope == before


@pytest.mark.parametrize("known", [{"user": "tanaka"}, {"extensions": {"tls": {"client_cert_name": "CN=x"}}}])
@on_loop
async def test_users_known_to_outer_middleware_bypass_the_cache(known: Message) -> None:
    class User:
        is_authenticated = True

    app = App()
    stack = cached(app)
    changes = {"user": User()} if "user" in known else known
    for _ in range(2):
        await Client(stack, **changes).ask()
    assert app.calls == 2


@on_loop
async def test_an_identity_may_be_awaited() -> None:
    async def identity(scope: Message) -> object:
        await asyncio.sleep(0)
        return scope["user"]

    app = App()
    stack = cached(app, rules=[CacheRule("/*", ttl=60, identity=identity)])
    for user in ("a", "b", "a", None, None):
        await Client(stack, user=user).ask()
    assert app.calls == 4


def test_an_identity_that_must_be_awaited_is_refused_in_wsgi() -> None:
    from mks_hardening.wsgi import ResponseCacheMiddleware as ForWSGI

    async def identity(environ: Message) -> object:
        return 1

    rule = CacheRule("/*", ttl=60, identity=identity)
    with pytest.raises(ConfigurationError, match="identity must be a plain function"):
        ForWSGI(lambda *_: [], cache=MemoryCache(), rules=[rule])


@on_loop
async def test_names_with_underscores_are_no_variant_of_names_with_dashes() -> None:
    """An application does not see Accept_Language as Accept-Language."""
    app = App({**START, "headers": [(b"vary", b"Accept-Language")]}, body(b"page"))
    stack = cached(app)
    await Client(stack, headers=[(b"host", b"example.com"), (b"accept_language", b"ja")]).ask()
    await Client(stack, headers=[(b"host", b"example.com"), (b"accept-language", b"ja")]).ask()
    assert app.calls == 2


@pytest.mark.parametrize("fields", [[b"_ga=1", b"session=x"], [b"session=x", b"_ga=1"]])
@on_loop
async def test_a_cookie_in_a_field_of_its_own_is_not_overlooked(fields: list[bytes]) -> None:
    """HTTP/2 may split them (RFC 9113, 8.2.3)."""
    app = App()
    stack = cached(app, rules=[CacheRule("/*", ttl=60, ignore_cookies=["_ga"])])
    headers = [(b"host", b"example.com"), *((b"cookie", field) for field in fields)]
    for _ in range(2):
        await Client(stack, headers=headers).ask()
    assert app.calls == 2
    for _ in range(2):
        harmless = [(b"host", b"example.com"), (b"cookie", b"_ga=1"), (b"cookie", b"_ga=2")]
        await Client(stack, headers=harmless).ask()
    assert app.calls == 3


@on_loop
async def test_requests_without_a_host_share_no_entry_across_servers() -> None:
    app = App()
    stack = cached(app)
    servers = [("a.example", 80), ("b.example", 80), ("a.example", 81), None]
    for server in (*servers, *servers):
        await Client(stack, headers=[], server=server).ask()
    assert app.calls == len(servers)


@on_loop
async def test_the_route_of_a_framework_is_known_on_a_hit() -> None:
    class Route:
        path = "/page/{id}"

    async def app(scope: Message, receive: Any, send: Any) -> None:
        scope["route"] = Route()
        await send(START)
        await send(body(b"page"))

    stack = cached(app)
    routes = []

    async def outer(given: Message, receive: Any, send: Any) -> None:
        from mks_hardening._core.web.private_scope import private_scope

        inner = private_scope(given)
        await stack(inner, receive, send)
        routes.append(inner.get("mks_hardening.route"))

    for _ in range(2):
        await Client(outer).ask()
    assert routes == ["/page/{id}"] * 2


@on_loop
async def test_while_redis_is_unavailable_pages_are_made() -> None:
    app = App()
    async with RedisCache("redis://127.0.0.1:1/0") as cache:
        stack = cached(app, cache)
        for _ in range(3):
            assert await Client(stack).ask() == b"page"
    assert app.calls == 3


@on_loop
async def test_a_change_invalidates_before_its_first_byte_and_after_its_end() -> None:
    stored: list[bytes] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(scope["method"].encode()))
        if scope["method"] == "POST":
            stored.append(await Client(stack).ask())  # a reader before the transaction ends

    stack = cached(app)
    await Client(stack).ask()
    await Client(stack, method="POST").ask()
    again = Client(stack)
    await again.ask()
    assert stored == [b"GET"]
    assert not any(name == b"age" for name, _ in again.sent[0]["headers"])
