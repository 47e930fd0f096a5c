"""Limits of concurrent requests through both shells."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import selectors
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening._core import function_errors
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.testing import call_asgi, call_wsgi
from mks_hardening.wsgi import ConcurrencyRule, limit_by_address

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"fine"}
PERSON = "taro@example.com"
TEXT = [("Content-Type", "text/plain")]


def scope_of(path: str = "/", *, client: str = "192.0.2.1", kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": path, "headers": [], "client": (client, 1)}


async def never() -> Any:
    await asyncio.Event().wait()


class Messages:
    """The ``receive`` of a server whose client sends messages, and then leaves when it is told to."""

    def __init__(self, *messages: Any) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        for message in messages:
            self.queue.put_nowait(message)

    async def __call__(self) -> Any:
        return await self.queue.get()

    def leave(self, kind: str = "http.disconnect") -> None:
        self.queue.put_nowait({"type": kind})


class Client:
    """Sends requests to an application that holds each until it is released."""

    def __init__(self, rules: list[ConcurrencyRule], limits: dict[str, int], **options: Any) -> None:
        self.limiter = ConcurrencyLimiter(limits)
        self.app = asgi.ConcurrencyMiddleware(self.work, limiter=self.limiter, rules=rules, **options)
        self.inside: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.sent: dict[str, list[Any]] = {}

    async def work(self, scope: Any, _receive: Any, send: Any) -> None:
        name = scope["path"]
        self.inside.append(name)
        await self.gates.setdefault(name, asyncio.Event()).wait()
        if name.endswith("error"):
            raise ValueError(name)
        await send(START)
        await send(BODY)

    def begin(self, path: str, *, receive: Any = None, **scope: Any) -> asyncio.Task[None]:
        sent = self.sent.setdefault(path, [])

        async def send(message: Any) -> None:
            sent.append(message)

        return asyncio.create_task(self.app(scope_of(path, **scope), receive or never, send))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def status(self, path: str) -> int:
        return int(self.sent[path][0]["status"]) if self.sent.get(path) else 0

    def release(self, path: str) -> None:
        self.gates.setdefault(path, asyncio.Event()).set()


def test_a_request_beyond_the_limit_gets_503_at_once() -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 2}, wait=0)
        tasks = [client.begin(path) for path in ("/a", "/b", "/c")]
        await client.settle()
        assert client.inside == ["/a", "/b"]
        head, body = client.sent["/c"]
        fields = dict(head["headers"])
        assert head["status"] == 503
        assert fields[b"retry-after"] == b"1"
        assert fields[b"cache-control"] == b"no-store"
        assert json.loads(body["body"])["status"] == 503
        client.release("/a")
        await client.settle()
        client.release("/d")
        await client.begin("/d")
        assert client.status("/d") == 200
        client.release("/b")
        await asyncio.gather(*tasks)
        assert client.limiter.held("all", "all") == 0

    asyncio.run(run())


def test_a_few_wait_in_order() -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30, most_waiting=2)
        tasks = {path: client.begin(path) for path in ("/a", "/b", "/c", "/d")}
        await client.settle()
        assert client.inside == ["/a"]
        assert {path: client.status(path) for path in tasks} == {"/a": 0, "/b": 0, "/c": 0, "/d": 503}
        client.release("/a")
        late = client.begin("/e")  # when the slot is free, but others wait for it
        await client.settle()
        assert client.inside == ["/a", "/b"]
        for path in ("/b", "/c", "/e"):
            client.release(path)
        await asyncio.gather(*tasks.values(), late)
        assert client.inside[:3] == ["/a", "/b", "/c"]

    asyncio.run(run())


def test_requests_that_wait_for_their_own_slots_take_no_place_of_others() -> None:
    async def run() -> None:
        rules = [ConcurrencyRule("client", key=limit_by_address), ConcurrencyRule("all")]
        client = Client(rules, {"client": 1, "all": 2}, wait=30, most_waiting=2)
        greedy = [client.begin(f"/greedy/{number}", client="198.51.100.66") for number in range(5)]
        await client.settle()
        statuses = [client.status(f"/greedy/{number}") for number in range(5)]
        assert statuses == [0, 0, 0, 503, 503]  # one is handled, two wait for a slot of their client
        others = [client.begin(f"/{number}", client=f"192.0.2.{number}") for number in range(4)]
        await client.settle()
        assert client.inside == ["/greedy/0", "/0"]
        assert [client.status(f"/{number}") for number in range(4)] == [0, 0, 0, 503]
        client.release("/greedy/0")
        await client.settle()
        assert client.inside == ["/greedy/0", "/0", "/1"]  # the next request of the first client is behind it
        for path in ("/0", "/1", "/2", "/greedy/1", "/greedy/2"):
            client.release(path)
        await asyncio.gather(*greedy, *others)
        assert client.inside == ["/greedy/0", "/0", "/1", "/2", "/greedy/1", "/greedy/2"]
        assert (client.limiter.held("all", "all"), client.limiter.held("client", "198.51.100.66")) == (0, 0)

    asyncio.run(run())


def test_a_request_waits_once_for_all_its_slots() -> None:
    async def run() -> None:
        loop, most = asyncio.get_running_loop(), 30
        rules = [ConcurrencyRule("first", path="/b"), ConcurrencyRule("second")]
        client = Client(rules, {"first": 1, "second": 1}, wait=most)
        slots = [await client.limiter.aacquire(name, "all") for name in ("first", "second")]
        task = client.begin("/b")
        await asyncio.sleep(most / 2)
        slots[0].release()  # not through the middleware
        await task
        assert client.status("/b") == 503
        assert most <= loop.time() < most * 1.5
        slots[1].release()

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(run())


@pytest.mark.parametrize("others", [1, 3])
def test_slots_that_others_release_are_found_while_a_request_waits(others: int) -> None:
    """Several middlewares may share a limit, in this process or another."""

    async def run() -> None:
        limiter, ended = ConcurrencyLimiter({"all": 1}), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(1 / 20)
            await send(START)
            await send({"type": "http.response.body", "body": b""})
            ended.append(asyncio.get_running_loop().time())

        async def ask(middleware: Any) -> int:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            await middleware(scope_of(), never, send)
            return int(sent[0]["status"])

        rules = [ConcurrencyRule("all")]
        first, second = (asgi.ConcurrencyMiddleware(app, limiter=limiter, rules=rules) for _ in range(2))
        statuses = await asyncio.gather(ask(first), *(ask(second) for _ in range(others)))
        assert statuses == [200] * (others + 1)
        assert ended[-1] < 0.12 * (others + 1)
        assert limiter.held("all", "all") == 0

    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(run())


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop whose time begins at 0, and jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: PatientLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self._loop.jump(timeout)
        return found


@pytest.mark.parametrize("begins_with", [[], [{"type": "http.request", "body": b"", "more_body": False}]])
def test_a_client_that_leaves_while_it_waits_takes_no_slot(
    begins_with: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30)
        client.app = asgi.RequestLoggingMiddleware(client.app)
        first, messages = client.begin("/a"), Messages(*begins_with)
        gone = client.begin("/gone", receive=messages)
        last = client.begin("/c")
        await client.settle()
        messages.leave()
        await gone
        assert client.sent["/gone"] == []
        client.release("/a")
        client.release("/c")
        await asyncio.gather(first, last)
        assert client.inside == ["/a", "/c"]
        assert client.limiter.held("all", "all") == 0

    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        asyncio.run(run())
    (record,) = [vars(record) for record in caplog.records if vars(record).get("path") == "/gone"]
    assert (record["status"], record["outcome"], record["levelno"]) == (0, "aborted", logging.INFO)


def test_a_request_that_has_waited_is_not_watched_any_more(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30)
        app = asgi.RequestLoggingMiddleware(client.app)
        messages = Messages({"type": "http.request", "body": b"", "more_body": False})

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":  # as Hypercorn ends a response
                messages.leave()
                await client.settle()

        first = client.begin("/a")
        await client.settle()
        waiting = asyncio.create_task(app(scope_of("/b"), messages, send))
        await client.settle()
        client.release("/a")
        client.release("/b")
        await asyncio.gather(first, waiting)

    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        asyncio.run(run())
    (record,) = [vars(record) for record in caplog.records if vars(record).get("path") == "/b"]
    assert (record["status"], record["outcome"]) == (200, "ok")


def test_a_websocket_that_is_closed_while_it_waits_takes_no_slot() -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30, count_sockets=True)
        first, messages = client.begin("/a", kind="websocket"), Messages({"type": "websocket.connect"})
        gone = client.begin("/gone", kind="websocket", receive=messages)
        await client.settle()
        messages.leave("websocket.disconnect")
        await gone
        client.release("/a")
        await first
        assert (client.inside, client.sent["/gone"]) == (["/a"], [])

    asyncio.run(run())


BODY_PARTS = [
    {"type": "http.request", "body": b"a", "more_body": True},
    {"type": "http.request", "body": b"b", "more_body": True},
    {"type": "http.request", "body": b"c", "more_body": False},
]


@pytest.mark.parametrize("arrives", ["before", "after"])
def test_a_request_that_has_waited_receives_its_whole_body(arrives: str) -> None:
    async def run() -> None:
        received: list[Any] = []

        async def work(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/upload":
                with suppress(TimeoutError):  # as frameworks do that watch for a disconnect
                    async with asyncio.timeout(0):
                        await receive()
                while not received or received[-1].get("more_body"):
                    received.append(await receive())
                received.append(await receive())
            else:
                await released.wait()
            await send(START)
            await send(BODY)

        released = asyncio.Event()
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30)
        client.app = asgi.ConcurrencyMiddleware(
            work, limiter=client.limiter, rules=[ConcurrencyRule("all")], wait=30
        )
        messages = Messages(*(BODY_PARTS if arrives == "before" else []))
        tasks = [client.begin("/a"), client.begin("/upload", receive=messages)]
        await client.settle()
        assert messages.queue.qsize() == (2 if arrives == "before" else 0)  # one part is read ahead
        released.set()
        await client.settle()
        for message in BODY_PARTS if arrives == "after" else []:
            messages.queue.put_nowait(message)
        messages.leave()
        await asyncio.gather(*tasks)
        assert received == [*BODY_PARTS, {"type": "http.disconnect"}][-len(received) :]
        assert len(received) >= 3
        assert client.status("/upload") == 200

    asyncio.run(run())


def test_an_error_of_the_server_reaches_the_application_that_receives() -> None:
    async def broken() -> Any:
        raise OSError("the server")

    async def run() -> None:
        async def work(scope: Any, receive: Any, _send: Any) -> None:
            await (receive() if scope["path"] == "/b" else released.wait())

        released = asyncio.Event()
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30)
        client.app = asgi.ConcurrencyMiddleware(
            work, limiter=client.limiter, rules=[ConcurrencyRule("all")], wait=30
        )
        first, second = client.begin("/a"), client.begin("/b", receive=broken)
        await client.settle()
        released.set()
        await first
        with pytest.raises(OSError, match="the server"):
            await second

    asyncio.run(run())


def test_a_server_that_repeats_its_messages_is_not_read_forever() -> None:
    async def repeats() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30)
        tasks = [client.begin("/a"), client.begin("/b", receive=repeats)]
        await client.settle()
        client.release("/a")
        client.release("/b")
        await asyncio.gather(*tasks)
        assert client.status("/b") == 200

    asyncio.run(run())


# --- one request and its slots


SAME: list[tuple[list[ConcurrencyRule], list[ConcurrencyRule]]] = [
    ([ConcurrencyRule("all"), ConcurrencyRule("all", path="/x")], []),
    ([ConcurrencyRule("all")], [ConcurrencyRule("all")]),
    ([ConcurrencyRule("all", key=limit_by_address)], [ConcurrencyRule("all", key=limit_by_address)]),
]


@pytest.mark.parametrize(("outer", "inner"), SAME)
def test_a_request_does_not_wait_for_itself(
    outer: list[ConcurrencyRule], inner: list[ConcurrencyRule]
) -> None:
    limiter = ConcurrencyLimiter({"all": 1})
    held: list[int] = []

    def work(environ: Any, start_response: Any) -> list[bytes]:
        held.append(limiter.held("all", "all") + limiter.held("all", environ["REMOTE_ADDR"]))
        start_response("200 OK", TEXT)
        return [b"fine"]

    async def awork(scope: Any, _receive: Any, send: Any) -> None:
        held.append(limiter.held("all", "all") + limiter.held("all", scope["client"][0]))
        await send(START)
        await send(BODY)

    app: Any = work
    aapp: Any = awork
    for rules in filter(None, (inner, outer)):
        app = wsgi.ConcurrencyMiddleware(app, limiter=limiter, rules=rules)
        aapp = asgi.ConcurrencyMiddleware(aapp, limiter=limiter, rules=rules, wait=30)
    for _ in range(2):
        assert call_wsgi(app, "/x", environ={"REMOTE_ADDR": "192.0.2.1"}).status == 200
        assert call_asgi(aapp, "/x").status == 200
    assert held == [1] * 4
    assert limiter.held("all", "all") == 0


def test_a_request_holds_slots_of_different_keys_and_limiters() -> None:
    limiters = [ConcurrencyLimiter({"all": 1}) for _ in range(2)]
    held: list[list[int]] = []

    def work(_environ: Any, start_response: Any) -> list[bytes]:
        held.append([limiter.held("all", key) for limiter in limiters for key in ("all", "192.0.2.1")])
        start_response("200 OK", TEXT)
        return [b"fine"]

    app: Any = work
    for limiter in limiters:
        rules = [ConcurrencyRule("all"), ConcurrencyRule("all", key=limit_by_address)]
        app = wsgi.ConcurrencyMiddleware(app, limiter=limiter, rules=rules)
    assert call_wsgi(app, environ={"REMOTE_ADDR": "192.0.2.1"}).status == 200
    assert held == [[1, 1, 1, 1]]


def wrong_key(kind: str) -> Any:
    class Coroutine:
        def __call__(self, _request: Any) -> Any:
            async def late() -> str:
                return "key"

            return late()

    def raises(_request: Any) -> str:
        raise LookupError(PERSON)

    values: dict[str, Any] = {"bytes": b"key", "list": ["key"]}
    return {"raises": raises, "coroutine": Coroutine()}.get(kind) or (lambda _request: values[kind])


@pytest.mark.parametrize("kind", ["raises", "coroutine", "bytes", "list"])
@pytest.mark.parametrize("area", [wsgi, asgi])
def test_after_an_error_of_the_key_the_client_address_holds_the_slot(
    area: Any, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_errors, "_silent_until", {})
    limiter = ConcurrencyLimiter({"user": 1})
    rules = [ConcurrencyRule("user", key=wrong_key(kind))]
    held: list[int] = []

    def work(_environ: Any, start_response: Any) -> list[bytes]:
        held.append(limiter.held("user", "192.0.2.1"))
        start_response("200 OK", TEXT)
        return [b"fine"]

    async def awork(_scope: Any, _receive: Any, send: Any) -> None:
        held.append(limiter.held("user", "192.0.2.1"))
        await send(START)
        await send(BODY)

    for _ in range(2):
        if area is wsgi:
            app = wsgi.ConcurrencyMiddleware(work, limiter=limiter, rules=rules)
            assert call_wsgi(app, environ={"REMOTE_ADDR": "192.0.2.1"}).status == 200
        else:
            client = asgi.ConcurrencyMiddleware(awork, limiter=limiter, rules=rules)
            assert call_asgi(client, scope={"client": ("192.0.2.1", 1)}).status == 200
    assert held == [1, 1]
    (record,) = [record for record in caplog.records if record.name == "mks_hardening.rate_limits"]
    assert "requests are counted by client address" in record.getMessage()
    assert PERSON not in caplog.text


@pytest.mark.parametrize("value", [7, 1.5, UUID(int=1)])
def test_numbers_and_uuids_are_keys(value: Any) -> None:
    rule = ConcurrencyRule("user", key=lambda _request: value)
    assert rule.key_of({}, "GET", "/") == str(value)


def test_several_released_slots_serve_several_that_wait() -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 3}, wait=30, most_waiting=9)
        tasks = [client.begin(f"/{number}") for number in range(9)]
        await client.settle()
        for number in range(3):
            client.release(f"/{number}")
        await client.settle()
        assert client.inside == [f"/{number}" for number in range(6)]
        for number in range(3, 9):
            client.release(f"/{number}")
        await asyncio.gather(*tasks)
        assert {client.status(f"/{number}") for number in range(9)} == {200}
        assert client.limiter.held("all", "all") == 0

    asyncio.run(run())


def test_waiting_ends() -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=0.02)
        first = client.begin("/a")
        await client.settle()
        await client.begin("/b")
        assert client.status("/b") == 503
        client.release("/a")
        await first
        client.release("/c")
        await client.begin("/c")
        assert client.status("/c") == 200

    asyncio.run(run())


@pytest.mark.parametrize("waits", [True, False])
def test_a_client_that_leaves_gives_its_place_back(waits: bool) -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=30)
        tasks = [client.begin(path) for path in ("/a", "/b", "/c")]
        await client.settle()
        gone = tasks.pop(1 if waits else 0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        for path in ("/a", "/b", "/c"):
            client.release(path)
        await asyncio.gather(*tasks)
        assert client.status("/c") == 200
        assert client.limiter.held("all", "all") == 0

    asyncio.run(run())


def test_an_error_gives_the_slot_back() -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=0)
        for path in ("/error", "/x/error"):
            client.release(path)
            with pytest.raises(ValueError, match=path):
                await client.begin(path)
        assert client.limiter.held("all", "all") == 0

    asyncio.run(run())


def test_a_client_at_its_limit_takes_no_slot_of_all() -> None:
    async def run() -> None:
        rules = [ConcurrencyRule("client", key=limit_by_address), ConcurrencyRule("all")]
        client = Client(rules, {"client": 2, "all": 3}, wait=0)
        tasks = [client.begin(f"/{number}") for number in range(5)]
        await client.settle()
        assert [client.status(f"/{number}") for number in range(5)] == [0, 0, 503, 503, 503]
        tasks += [client.begin("/other", client="192.0.2.2"), client.begin("/third", client="192.0.2.3")]
        await client.settle()
        assert (client.status("/other"), client.status("/third")) == (0, 503)
        assert client.limiter.held("client", "192.0.2.3") == 0
        for path in ("/0", "/1", "/other"):
            client.release(path)
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_rules_select_requests() -> None:
    async def run() -> None:
        rules = [
            ConcurrencyRule("all", path="/reports/", exempt=lambda scope: scope["path"].endswith("/free"))
        ]
        client = Client(rules, {"all": 1}, wait=0)
        paths = ("/reports/a", "/x/../reports/b", "/reports/free", "/page", "/page/2")
        tasks = [client.begin(path) for path in paths]
        await client.settle()
        assert [client.status(path) for path in paths] == [0, 503, 0, 0, 0]
        for path in paths:
            client.release(path)
        await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("counts", [False, True])
def test_websockets_hold_slots_only_if_asked_to(counts: bool) -> None:
    async def run() -> None:
        client = Client([ConcurrencyRule("all")], {"all": 1}, wait=0, count_sockets=counts)
        tasks = [client.begin(path, kind="websocket") for path in ("/a", "/b")]
        await client.settle()
        assert client.inside == (["/a"] if counts else ["/a", "/b"])
        if counts:
            assert client.sent["/b"] == [{"type": "websocket.close", "code": 1008}]
        for path in ("/a", "/b"):
            client.release(path)
        await asyncio.gather(*tasks)

    asyncio.run(run())


# --- WSGI


def call(app: Any, path: str = "/") -> Any:
    return call_wsgi(app, path)


def test_a_thread_holds_a_slot_until_its_response_is_closed() -> None:
    limiter = ConcurrencyLimiter({"all": 1})
    entered, released = threading.Event(), threading.Event()

    def work(_environ: Any, start_response: Any) -> list[bytes]:
        entered.set()
        assert released.wait(30)
        start_response("200 OK", TEXT)
        return [b"fine"]

    app = wsgi.ConcurrencyMiddleware(work, limiter=limiter, rules=[ConcurrencyRule("all")])
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call(app)))
    thread.start()
    assert entered.wait(30)
    refused = call(app)
    released.set()
    thread.join(30)
    assert (refused.status, refused.header("Retry-After")) == (503, "1")
    assert [answer.status for answer in answers] == [200]
    assert call(app).status == 200
    assert limiter.held("all", "all") == 0


def test_a_stream_holds_its_slot_until_it_is_closed() -> None:
    limiter = ConcurrencyLimiter({"all": 1})
    closed: list[bool] = []

    class Stream:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a", b"b"])

        def close(self) -> None:
            closed.append(True)

    def work(_environ: Any, start_response: Any) -> Stream:
        start_response("200 OK", TEXT)
        return Stream()

    app = wsgi.ConcurrencyMiddleware(work, limiter=limiter, rules=[ConcurrencyRule("all")])
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}
    body: Any = app(environ, lambda *_: None)  # type: ignore[arg-type]  # a server's
    assert b"".join(body) == b"ab"
    assert limiter.held("all", "all") == 1
    body.close()
    assert (limiter.held("all", "all"), closed) == (0, [True])
    body.close()


def test_the_body_has_a_length_only_if_the_application_gave_one() -> None:
    limiter = ConcurrencyLimiter({"all": 9})
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}

    def body_of(result: Any) -> Any:
        app = wsgi.ConcurrencyMiddleware(
            lambda _environ, _start_response: result, limiter=limiter, rules=[ConcurrencyRule("all")]
        )
        return app(environ, lambda *_: None)  # type: ignore[arg-type]  # a server's

    assert len(body_of([b"a", b"b"])) == 2
    assert not hasattr(body_of(iter([b"a"])), "__len__")  # waitress calls it if there is one


def test_a_server_that_forgets_to_close_loses_no_slot_for_good() -> None:
    limiter = ConcurrencyLimiter({"all": 1})

    def work(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [b"fine"]

    app = wsgi.ConcurrencyMiddleware(work, limiter=limiter, rules=[ConcurrencyRule("all")])
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}
    body: Any = app(environ, lambda *_: None)  # type: ignore[arg-type]  # a server's
    assert len(body) == 1
    assert limiter.held("all", "all") == 1
    del body
    gc.collect()
    assert limiter.held("all", "all") == 0


def test_a_file_of_the_server_stays_its_own() -> None:
    limiter = ConcurrencyLimiter({"all": 1})
    closed: list[bool] = []

    class FileWrapper:
        def close(self) -> None:
            closed.append(True)

    file: Any = FileWrapper()
    app: Any = wsgi.ConcurrencyMiddleware(
        lambda _environ, _start_response: file, limiter=limiter, rules=[ConcurrencyRule("all")]
    )
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.file_wrapper": FileWrapper}
    assert app(environ, None) is file
    assert limiter.held("all", "all") == 1
    file.close()
    assert (limiter.held("all", "all"), closed) == (0, [True])


def test_an_error_of_a_wsgi_application_gives_the_slot_back() -> None:
    limiter = ConcurrencyLimiter({"all": 1})

    def work(_environ: Any, _start_response: Any) -> list[bytes]:
        raise ValueError("broken")

    app = wsgi.ConcurrencyMiddleware(work, limiter=limiter, rules=[ConcurrencyRule("all")])
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            call(app)
    assert limiter.held("all", "all") == 0


@pytest.mark.parametrize("area", [wsgi, asgi])
@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"rules": []}, "rules"),
        ({"rules": ["all"]}, "rules"),
        ({"rules": [ConcurrencyRule("unknown")]}, "rules"),
        ({"limiter": object()}, "limiter"),
    ],
)
def test_wrong_options_are_refused_by_parameter(area: Any, options: dict[str, Any], parameter: str) -> None:
    async def asgi_app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    app = asgi_app if area is asgi else (lambda environ, start_response: [])
    usual = {"limiter": ConcurrencyLimiter({"all": 1}), "rules": [ConcurrencyRule("all")]}
    with pytest.raises(ConfigurationError) as refused:
        area.ConcurrencyMiddleware(app, **{**usual, **options})
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"limit": ""}, "limit"),
        ({"path": "x"}, "path"),
        ({"key": "client"}, "key"),
        ({"exempt": 1}, "exempt"),
        ({"methods": "GET"}, "methods"),
        ({"methods": []}, "methods"),
        ({"path": []}, "path"),
        ({"path": "/a?b"}, "path"),
        ({"path": ["/a", "/%2e"]}, "path"),
        ({"path": "/a#b"}, "path"),
        ({"key": never}, "key"),
    ],
)
def test_wrong_rules_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ConcurrencyRule(**{"limit": "all", **options})
    assert refused.value.parameter == parameter


def test_a_limiter_lists_its_limits() -> None:
    assert ConcurrencyLimiter({"all": 3}).limits == {"all": 3}
