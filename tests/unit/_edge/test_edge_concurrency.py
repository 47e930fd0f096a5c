"""Limits of concurrent requests through both shells."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import ConcurrencyRule, limit_by_address

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"fine"}
TEXT = [("Content-Type", "text/plain")]


def scope_of(path: str = "/", *, client: str = "192.0.2.1", kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": path, "headers": [], "client": (client, 1)}


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

    def begin(self, path: str, **scope: Any) -> asyncio.Task[None]:
        sent = self.sent.setdefault(path, [])

        async def send(message: Any) -> None:
            sent.append(message)

        return asyncio.create_task(self.app(scope_of(path, **scope), send, send))  # type: ignore[arg-type]

    async def settle(self) -> None:
        for _ in range(10):
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
    ],
)
def test_wrong_rules_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ConcurrencyRule(**{"limit": "all", **options})
    assert refused.value.parameter == parameter


def test_a_limiter_lists_its_limits() -> None:
    assert ConcurrencyLimiter({"all": 3}).limits == {"all": 3}
