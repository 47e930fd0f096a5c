"""Limits of requests through both shells: the client gets the refusal, whatever the application does."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.exceptions import ConfigurationError, RequestLimitError
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import RequestLimitRule, RequestLimits

LIMITS = RequestLimits(body=1000, header_count=8, header_bytes=500, field_bytes=200, target_bytes=100)


class Reply:
    """What the client and the application got."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.read = b""
        self.error: BaseException | None = None

    @property
    def rule(self) -> str:
        """The limit that the problem document names."""
        return str(json.loads(self.body).get("limit", ""))


def through_wsgi(
    chunks: list[bytes],
    headers: dict[str, str],
    *,
    path: str,
    reader: str,
    clock: FrozenClock | None,
    http: str = "1.1",
    **options: Any,
) -> Reply:
    reply, slow = Reply(), clock
    source = _Chunks(chunks, slow)

    def application(environ: Any, start_response: Any) -> Any:
        def read() -> bytes:
            return b"".join(iter(lambda: environ["wsgi.input"].read(64), b""))

        reply.read, text = b"", b"fine"
        if reader == "swallow":
            try:
                reply.read = read()
            except Exception:  # noqa: BLE001 - as frameworks do
                text = b"a framework's own page"
        elif reader == "lazy":

            def later() -> Iterator[bytes]:
                reply.read = read()
                yield b"fine"

            start_response("200 OK", [("Content-Type", "text/plain")])
            return later()
        elif reader != "none":
            reply.read = read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text]

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST", "PATH_INFO": path.partition("?")[0], "QUERY_STRING": path.partition("?")[2],
        "wsgi.input": source, "wsgi.url_scheme": "http", "REMOTE_ADDR": "192.0.2.1",
        "SERVER_PROTOCOL": f"HTTP/{http}",
    }  # fmt: skip
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value

    def start_response(status: str, fields: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        assert not reply.status
        reply.status, reply.headers = int(status[:3]), {name.lower(): value for name, value in fields}

    app = wsgi.RequestLimitsMiddleware(application, **options, **({} if clock is None else {"clock": clock}))
    try:
        result = app(environ, start_response)
        reply.body = b"".join(result)
        getattr(result, "close", lambda: None)()
    except RequestLimitError as error:
        reply.error = error
    return reply


class _Chunks:
    """``wsgi.input`` that delivers one chunk at a time."""

    def __init__(self, chunks: list[bytes], clock: FrozenClock | None) -> None:
        self._left = io.BytesIO(b"".join(chunks))
        self._clock = clock

    def read(self, size: int = -1) -> bytes:
        if self._clock is not None:
            self._clock.advance(10)
        return self._left.read(size)

    readline = read


def through_asgi(
    chunks: list[bytes],
    headers: dict[str, str],
    *,
    path: str,
    reader: str,
    clock: FrozenClock | None,
    http: str = "1.1",
    **options: Any,
) -> Reply:
    reply = Reply()
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks or [b""])
    ]

    async def receive() -> Any:
        if clock is not None:
            clock.advance(10)
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not reply.status
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            reply.body += message.get("body", b"")

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        async def read() -> bytes:
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            return body

        text = b"fine"
        if reader == "swallow":
            try:
                reply.read = await read()
            except Exception:  # noqa: BLE001 - as frameworks do
                text = b"a framework's own page"
        elif reader != "none":
            reply.read = await read()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})

    plain, _, query = path.partition("?")
    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "POST", "path": plain, "query_string": query.encode(), "headers": fields,
        "http_version": http,
    }  # fmt: skip
    app = asgi.RequestLimitsMiddleware(application, **options, **({} if clock is None else {"clock": clock}))
    try:
        asyncio.run(app(scope, receive, send))
    except RequestLimitError as error:
        reply.error = error
    return reply


@pytest.fixture(params=[through_wsgi, through_asgi], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Reply]:
    def send(chunks: list[bytes] | None = None, headers: dict[str, str] | None = None, **given: Any) -> Reply:
        given = {"path": "/", "reader": "read", "clock": None, "limits": LIMITS} | given
        reply: Reply = request.param(chunks or [], headers or {}, **given)
        assert reply.error is None
        return reply

    return send


def length(size: int) -> dict[str, str]:
    return {"Content-Length": str(size)}


CHUNKED = {"Transfer-Encoding": "chunked"}


def test_a_body_of_exactly_the_limit_passes_whole(ask: Callable[..., Reply]) -> None:
    reply = ask([b"x" * 400, b"y" * 600], length(1000))
    assert (reply.status, reply.body, len(reply.read)) == (200, b"fine", 1000)


def test_a_declared_body_above_the_limit_is_refused_unread(ask: Callable[..., Reply]) -> None:
    reply = ask([b"x" * 1001], length(1001))
    assert (reply.status, reply.rule, reply.read) == (413, "1000", b"")


@pytest.mark.parametrize("reader", ["read", "swallow", "lazy"])
@pytest.mark.parametrize("chunks", [[b"x" * 1001], [b"x" * 600, b"y" * 401]])
def test_a_chunked_body_above_the_limit_is_refused_whatever_the_application_does(
    ask: Callable[..., Reply], reader: str, chunks: list[bytes]
) -> None:
    reply = ask(chunks, CHUNKED, reader=reader)
    assert (reply.status, reply.rule, reply.read) == (413, "1000", b"")


@pytest.mark.parametrize("version", ["2", "2.0", "3"])
@pytest.mark.parametrize("reader", ["read", "swallow", "lazy"])
def test_a_body_needs_no_header_field_after_http_1(
    ask: Callable[..., Reply], version: str, reader: str
) -> None:
    """RFC 9113, 8.1.1: the frames end the body, so neither a length nor ``Transfer-Encoding`` is required."""
    reply = ask([b"x" * 600, b"y" * 401], http=version, reader=reader)
    assert (reply.status, reply.rule, reply.read) == (413, "1000", b"")
    reply = ask([b"x" * 600, b"y" * 400], http=version, reader=reader)
    assert (reply.status, len(reply.read)) == (200, 1000)
    slow = ask([b"x"] * 400, http=version, reader=reader, clock=FrozenClock())
    assert (slow.status, slow.rule) == (408, "30.0")


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize(
    ("chunks", "kind", "status"),
    [
        ([b"{}"], "text/html", 415),
        ([b"{}"], None, 415),
        ([b"{}"], "application/json", 200),
        ([b""], None, 200),
    ],
)
def test_bodies_have_types_after_http_1_too(
    ask: Callable[..., Reply], version: str, chunks: list[bytes], kind: str | None, status: int
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    limits = RequestLimits(content_types=["application/json"])
    reply = ask(chunks, headers, http=version, limits=limits)
    assert reply.status == status
    assert reply.read == (b"" if status == 415 else chunks[0])


@pytest.mark.parametrize("reader", ["read", "swallow", "lazy"])
def test_a_body_counts_though_a_server_has_removed_how_it_ends(
    ask: Callable[..., Reply], reader: str
) -> None:
    """A server that decodes chunks may remove ``Transfer-Encoding`` without adding a length."""
    reply = ask([b"x" * 600, b"y" * 401], reader=reader)
    assert (reply.status, reply.rule, reply.read) == (413, "1000", b"")
    reply = ask([b"{}"], {"Content-Type": "text/xml"}, limits=RequestLimits(content_types=["text/csv"]))
    assert (reply.status, reply.read) == (415, b"")


def test_a_body_that_nobody_reads_is_not_refused(ask: Callable[..., Reply]) -> None:
    assert ask([b"x" * 2000], CHUNKED, reader="none").status == 200


@pytest.mark.parametrize("reader", ["read", "swallow"])
def test_a_body_that_takes_too_long_ends_with_408(ask: Callable[..., Reply], reader: str) -> None:
    reply = ask([b"x"] * 400, CHUNKED, reader=reader, clock=FrozenClock())
    assert (reply.status, reply.rule) == (408, "30.0")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "abc"},
        {"Content-Length": "-1"},
        {"Content-Length": "5,5"},
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "+5"},
        {"Content-Length": "5 5"},
        {"Content-Length": "0x5"},
        {"Content-Length": "-" + "9" * 30},
        {"Content-Length": "1_0"},
        {"Content-Length": "٣"},
    ],
)
def test_an_ambiguous_length_is_refused(ask: Callable[..., Reply], headers: dict[str, str]) -> None:
    assert ask([b"12345"], headers).status == 400


@pytest.mark.parametrize("digits", [18, 19, 30, 5000])
def test_a_number_of_any_length_is_a_length(ask: Callable[..., Reply], digits: int) -> None:
    loose = RequestLimits(header_bytes=9000)
    assert ask([b"12345"], {"Content-Length": "9" * digits}, limits=loose).status == 413
    assert ask([b"12345"], {"Content-Length": "5".zfill(digits)}, limits=loose).status == 200


class Endless:
    """``wsgi.input`` of a client that does not stop."""

    def __init__(self, clock: FrozenClock | None = None, end: int | None = None) -> None:
        self.sizes: list[int] = []
        self._clock = clock
        self._end = end

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "Granian takes no negative size"
        if self._clock is not None:
            self._clock.advance(2)
        if self._end is not None and len(self.sizes) >= self._end:
            raise OSError("the client has disconnected")
        self.sizes.append(size)
        return b"x" * size


def refused(source: Endless, app: Any = None, **changes: Any) -> tuple[list[str], list[bytes]]:
    """The heads of a refusal, and the chunks of its body."""
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "wsgi.url_scheme": "http", "wsgi.input": source}
    environ |= {"wsgi.input_terminated": True, **changes}
    heads: list[str] = []
    limited = wsgi.RequestLimitsMiddleware(app, limits=LIMITS, clock=environ.pop("clock", FrozenClock()))
    body: Any = limited(environ, lambda status, *_: heads.append(status))  # type: ignore[arg-type]
    assert len(heads) == 1, "Granian takes the head before the body"
    return heads, list(body)


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"CONTENT_LENGTH": "9" * 30}, 64 * 2**20),
        ({"CONTENT_LENGTH": "100000"}, 100_000),
        ({"CONTENT_LENGTH": "100000", "wsgi.input_terminated": False}, 100_000),
        ({"CONTENT_LENGTH": "100000", "HTTP_EXPECT": "100-continue"}, 0),
        ({"CONTENT_LENGTH": "-100000"}, 0),
        ({"CONTENT_LENGTH": "100000", "HTTP_TRANSFER_ENCODING": "chunked"}, 0),
        ({"CONTENT_LENGTH": "100000", "REQUEST_METHOD": "HEAD"}, 0),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_TYPE": "x" * 300, "HTTP_X": "x" * 300}, 64 * 2**20),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "HTTP_X": "x" * 300, "wsgi.input_terminated": False}, 0),
    ],
)
def test_a_refused_body_is_discarded_up_to_a_bound(changes: dict[str, Any], most: int) -> None:
    source = Endless()
    heads, chunks = refused(source, lambda *_: [], **changes)
    assert heads[0][:3] in ("400", "413", "431")
    assert sum(source.sizes) == most
    if most:
        assert json.loads(b"".join(chunks))["status"] == int(heads[0][:3])
        assert len(chunks[-1]) == 1, "the response ends when the rest of the request is read"


@pytest.mark.parametrize(("end", "reads"), [(None, 3), (2, 2)])
def test_discarding_ends_with_its_time_and_with_the_connection(end: int | None, reads: int) -> None:
    clock = FrozenClock()
    source = Endless(clock if end is None else None, end=end)
    _, chunks = refused(source, lambda *_: [], CONTENT_LENGTH="9999999", clock=clock)
    assert len(source.sizes) == reads
    assert json.loads(b"".join(chunks))["limit"] == 1000


def test_an_application_that_reads_everything_holds_no_more_than_the_limit() -> None:
    source, held = Endless(), list[int]()

    def app(environ: Any, _start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        finally:
            held.append(sum(source.sizes))
        return []

    heads, _ = refused(source, app, HTTP_TRANSFER_ENCODING="chunked")
    assert heads[0].startswith("413")
    assert held == [16 * 1024]


@pytest.mark.parametrize(
    ("status", "rule", "given"),
    [
        (414, "100", {"path": "/" + "x" * 100}),
        (414, "100", {"path": "/x?" + "y" * 100}),
        (431, "8", {"headers": {f"X-{number}": "1" for number in range(9)}}),
        (431, "200", {"headers": {"X-Long": "x" * 195}}),
        (431, "500", {"headers": {f"X-{number}": "x" * 150 for number in range(4)}}),
    ],
)
def test_heads_have_limits(ask: Callable[..., Reply], status: int, rule: str, given: dict[str, Any]) -> None:
    reply = ask(**given)
    assert (reply.status, reply.rule) == (status, rule)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("image/png", True),
        ("image", False),
        ("text/html", False),
        ("application/jsonp", False),
        (None, False),
    ],
)
def test_bodies_have_types(ask: Callable[..., Reply], kind: str | None, *, passes: bool) -> None:
    limits = RequestLimits(content_types=["application/json", "image/*"])
    headers = length(2) | ({} if kind is None else {"Content-Type": kind})
    reply = ask([b"{}"], headers, limits=limits)
    assert reply.status == (200 if passes else 415)
    assert passes or reply.headers["accept"] == "application/json, image/*"


def test_requests_without_a_body_need_no_type(ask: Callable[..., Reply]) -> None:
    assert ask(limits=RequestLimits(content_types=["application/json"])).status == 200


def test_rules_give_paths_their_own_limits(ask: Callable[..., Reply]) -> None:
    rules = [RequestLimitRule("/upload/", RequestLimits(body=5000))]
    assert ask([b"x" * 3000], length(3000), rules=rules, path="/upload/a").status == 200
    assert ask([b"x" * 3000], length(3000), rules=rules, path="/form").status == 413


def test_an_early_refusal_asks_to_close_the_connection_over_http_1() -> None:
    options: dict[str, Any] = {"path": "/", "reader": "read", "clock": None, "limits": LIMITS}
    assert through_asgi([b"x"], length(2000), **options).headers["connection"] == "close"
    assert "connection" not in through_wsgi([b"x"], length(2000), **options).headers  # PEP 3333: hop-by-hop


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"body": -1}, "body"),
        ({"header_count": 0}, "header_count"),
        ({"body_seconds": 0}, "body_seconds"),
        ({"content_types": ["json"]}, "content_types"),
        ({"content_types": ["*/*"]}, "content_types"),
        ({"target_bytes": "8 kB"}, "target_bytes"),
    ],
)
def test_wrong_limits_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RequestLimits(**options)
    assert refused.value.parameter == parameter


def test_a_response_that_has_begun_is_not_replaced() -> None:
    sent: list[Any] = []

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(RequestLimitError):
            await receive()
        await send({"type": "http.response.body", "body": b"late"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 2000, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(asgi.RequestLimitsMiddleware(application, limits=LIMITS)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


# --- methods and paths


def status_through_wsgi(limits: RequestLimits, method: str, target: str) -> tuple[int, str]:
    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    seen: list[Any] = []
    path = unquote_to_bytes(target.partition("?")[0]).decode("latin-1")
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "RAW_URI": target, "REMOTE_ADDR": "192.0.2.1"}
    app = wsgi.RequestLimitsMiddleware(application, limits=limits)
    app(environ, lambda status, headers: seen.append((status, dict(headers))))  # type: ignore[arg-type]
    return int(seen[0][0][:3]), seen[0][1].get("Allow", "")


def status_through_asgi(limits: RequestLimits, method: str, target: str) -> tuple[int, str]:
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    raw = target.partition("?")[0].encode()
    path = unquote_to_bytes(raw).decode("utf-8", "replace")
    scope = {"type": "http", "method": method, "path": path, "raw_path": raw, "headers": []}
    asyncio.run(asgi.RequestLimitsMiddleware(application, limits=limits)(scope, send, send))  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"allow", b"").decode()


STATUS = pytest.mark.parametrize(
    "status_of", [status_through_wsgi, status_through_asgi], ids=["wsgi", "asgi"]
)


@STATUS
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 200),
        ("/a/b.c/d-e_~", 200),
        ("/%E3%81%82%20x?next=//y/..%2f", 200),
        ("/a%20b", 200),
        ("/100%25", 200),
        ("/50%25-off", 200),
        ("//evil.test", 400),
        ("/a//b", 400),
        ("/a/../b", 400),
        ("/a/./b", 400),
        ("/a/..", 400),
        ("/%2e%2e/b", 400),
        ("/a/%2E%2E%2Fb", 400),
        ("/a%2fb", 400),
        ("/a%5Cb", 400),
        ("/a\\b", 400),
        ("/a%00", 400),
        ("/a%0d%0ab", 400),
        ("/%252e%252e/b", 400),
        ("/a%252fb", 400),
        ("/%25%32%65", 400),
        ("/a;version=1/b", 200),
        ("/..;/b", 400),
        ("/a/..;x=1/b", 400),
        ("/a/.;/b", 400),
        ("/a/..;", 400),
        ("/...;/b", 200),
        ("/%c0%af", 400),  # an overlong slash
        ("/%e3%81", 400),
        ("/%82%a0", 400),  # Shift JIS
        ("/%ef%bf%bd", 400),  # what servers put for either
        ("/%c2%85", 400),  # a control character of Unicode
        ("/%zz", 400),
        ("/%", 400),
        ("/a%2", 400),
        ("/%25u002e", 400),
        ("a", 400),
        ("*", 400),
        ("", 200),
        ("/;/b", 400),
        ("/;x/b", 400),
        ("/a/;/b", 400),
        ("/a/%3bx/b", 400),
        ("/a;/b", 200),
    ],
)
def test_ambiguous_paths_are_refused_if_asked_to(status_of: Any, target: str, status: int) -> None:
    assert status_of(RequestLimits(plain_paths=True), "GET", target)[0] == status
    assert status_of(RequestLimits(), "GET", target)[0] == 200


@pytest.mark.parametrize(
    ("mount", "status"),
    [
        *(("/app", 200), ("/app/", 200), ("/", 200), ("", 200)),
        *(("//app", 400), ("/app/..", 400), ("/%2e", 400), ("app", 400)),
    ],
)
def test_the_mount_is_a_part_of_the_path(mount: str, status: int) -> None:
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": mount, "PATH_INFO": "/a", "REMOTE_ADDR": "192.0.2.1"}
    seen: list[str] = []

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    app = wsgi.RequestLimitsMiddleware(application, limits=RequestLimits(plain_paths=True))
    list(app(environ, lambda status, headers: seen.append(status)))  # type: ignore[arg-type]
    assert seen[0][:3] == f"{status}"


def test_the_asterisk_of_options_is_no_path() -> None:
    assert status_through_wsgi(RequestLimits(plain_paths=True), "OPTIONS", "*")[0] == 200
    assert status_through_asgi(RequestLimits(plain_paths=True), "OPTIONS", "*")[0] == 200


@STATUS
def test_only_listed_methods_pass(status_of: Any) -> None:
    limits = RequestLimits(methods=["GET", "POST"])
    statuses = {
        method: status_of(limits, method, "/") for method in ("GET", "HEAD", "POST", "get", "TRACE", "")
    }
    allowed, refused = (200, ""), (405, "GET, POST, HEAD")
    assert statuses == {
        "GET": allowed,
        "HEAD": allowed,
        "POST": allowed,
        "get": refused,
        "TRACE": refused,
        "": refused,
    }


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"methods": []}, "methods"),
        ({"methods": "GET"}, "methods"),
        ({"methods": ["get"]}, "methods"),
        ({"methods": ["GET "]}, "methods"),
        ({"plain_paths": 1}, "plain_paths"),
    ],
)
def test_wrong_methods_and_paths_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RequestLimits(**options)
    assert refused.value.parameter == parameter
