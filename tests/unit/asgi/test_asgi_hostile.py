"""Scopes and header values that no server should hand on, and that clients send nevertheless."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from asgi_server import Server, call, hello, http, run, socket
from asgi_wrappers import STACKS, all_of_them
from tables import faulty_rows

ABSENT = object()
HOST = (b"host", b"www.example.com")


@pytest.fixture(params=STACKS)
def wrap(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return STACKS[request.param]


SCOPES: dict[str, dict[str, Any]] = {
    "no client": {"client": ABSENT},
    "client None": {"client": None},
    "client as list with a port of text": {"client": ["192.0.2.7", "40000"]},
    "client of a socket": {"client": ("", None)},
    "client by name": {"client": ("testclient", 50000)},
    "no server": {"server": ABSENT},
    "server None": {"server": None},
    "server of a socket": {"server": ("/run/app.sock", None)},
    "no raw path": {"raw_path": ABSENT},
    "raw path None": {"raw_path": None},
    "path with a replaced byte": {"path": "/a\ufffdb", "raw_path": b"/a%FFb"},
    "path with a replaced byte and no raw path": {"path": "/a\ufffdb", "raw_path": ABSENT},
    "raw path that is not escaped": {"path": "/a\ufffdb", "raw_path": b"/a\xffb"},
    "path with a surrogate": {"path": "/a\udcff", "raw_path": ABSENT},
    "path with controls": {"path": "/a\r\nX: y\x00", "raw_path": b"/a%0D%0AX:%20y%00"},
    "path in Japanese": {"path": "/日本", "raw_path": b"/%E6%97%A5%E6%9C%AC"},
    "empty path": {"path": "", "raw_path": b""},
    "path of OPTIONS": {"path": "*", "raw_path": b"*", "method": "OPTIONS"},
    "no headers": {"headers": ABSENT},
    "headers None": {"headers": None},
    "empty headers": {"headers": []},
    "headers as tuples": {"headers": (HOST, (b"cookie", b"a=b"))},
    "headers as lists": {"headers": [[b"host", b"www.example.com"], [b"cookie", b"a=b"]]},
    "names in capitals": {"headers": [(b"HOST", b"www.example.com"), (b"COOKIE", b"a=b"), (b"ORIGIN", b"x")]},
    "names that are none": {"headers": [HOST, (b"", b""), (b"a b", b"c"), (b"\xff\x00", b"\xff\x00")]},
    "two hosts": {"headers": [HOST, (b"host", b"evil.test")]},
    "host that is none": {"headers": [(b"host", b"\xff\xfe:x]")]},
    "many lines of each": {
        "headers": [HOST, *[(name, b"x") for name in (b"cookie", b"origin", b"accept", b"x-request-id")] * 3]
    },
    "bytes in every value": {
        "headers": [
            HOST,
            *[
                (name, b"\xff\x00\r\n,;=\"'")
                for name in (
                    *(b"cookie", b"origin", b"referer", b"accept", b"accept-language", b"authorization"),
                    *(b"user-agent", b"traceparent", b"x-request-id", b"x-forwarded-for", b"forwarded"),
                    *(b"content-type", b"content-length", b"sec-fetch-site", b"x-csrf-token"),
                )
            ],
        ]
    },
    "no root path": {"root_path": ABSENT},
    "root path None": {"root_path": None},
    "root path with a slash": {"root_path": "/app/", "path": "/app/x"},
    "root path that is not in the path": {"root_path": "/app", "path": "/x"},
    "root path in Japanese": {"root_path": "/日本", "path": "/日本/x", "raw_path": b"/%E6%97%A5%E6%9C%AC/x"},
    "no query": {"query_string": ABSENT},
    "query None": {"query_string": None},
    "query of bytes": {"query_string": b"\xff\x00=%&&;=;%zz"},
    "no scheme": {"scheme": ABSENT},
    "scheme None": {"scheme": None},
    "scheme of another type": {"scheme": "ftp"},
    "no extensions": {"extensions": ABSENT},
    "extensions None": {"extensions": None},
    "no version": {"asgi": {}, "http_version": ABSENT},
    "version None": {"http_version": None},
    "version None, two lengths": {"http_version": None, "headers": [HOST, (b"content-length", b"5,6")]},
    "method in small letters": {"method": "post"},
    "method of tea": {"method": "BREW"},
    "empty method": {"method": ""},
}


def broken(scope: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**scope, **changes}.items() if value is not ABSENT}


@pytest.mark.parametrize("make", [http, socket])
def test_a_scope_is_served_or_refused_and_never_an_error(wrap: Any, make: Any) -> None:
    def look(name: str) -> None:
        scope = broken(make(), SCOPES[name])
        if scope["type"] == "websocket":
            scope.pop("method", None)
        first = [{"type": "websocket.connect"}] if scope["type"] == "websocket" else []
        server = call(wrap(hello), scope, *first)
        statuses = [message["status"] for message in server.sent if "status" in message]
        assert all(status < 500 for status in statuses)
        assert server.types[-1] in ("http.response.body", "websocket.close", "websocket.http.response.body")

    assert faulty_rows(SCOPES, look) == {}


LONG: dict[str, bytes] = {
    "cookie": b"a=b; " * 20_000,
    "cookie of one": b"__Host-mks-session=" + b"x" * 100_000,
    "cookie of quotes": b'"\\' * 50_000,
    "x-forwarded-for": b"1.1.1.1, " * 11_000,
    "x-forwarded-for of blanks": b" " * 100_000,
    "x-forwarded-proto": b"https," * 16_000,
    "x-forwarded-host": b"a." * 50_000,
    "forwarded": b'for="' * 20_000,
    "forwarded of commas": b"," * 100_000,
    "host": b"a" * 100_000,
    "origin": b"https://" + b"a" * 100_000,
    "referer": b"https://a/" + b"%" * 100_000,
    "accept": b"text/html;q=0.9," * 6000,
    "accept-language": b"ja;q=0.9," * 11_000,
    "authorization": b"Bearer " + b"x" * 100_000,
    "user-agent": b"\x1b" * 100_000,
    "traceparent": b"0-" * 50_000,
    "x-request-id": b"a" * 100_000,
    "x-csrf-token": b"0" * 100_000,
    "content-type": b"multipart/form-data; boundary=" + b"a" * 100_000,
    "content-length": b"9" * 100_000,
    "sec-fetch-site": b"cross-site" * 10_000,
    "access-control-request-headers": b"x-a," * 25_000,
    "transfer-encoding": b"chunked," * 12_000,
}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("but", ["", "RequestLimitsMiddleware"], ids=["all", "no limits of size"])
def test_a_value_of_100_kb_costs_no_more_than_5_ms(method: str, but: str) -> None:
    app = all_of_them(hello, but=but)

    def look(name: str) -> None:
        field = (name.partition(" ")[0].encode(), LONG[name])
        headers = [field] if field[0] == b"host" else [HOST, field]
        took: list[float] = []

        async def play() -> None:
            for number in range(6):  # another value each time, so that nothing is remembered
                scope = http(method=method, headers=[*headers, (b"x-number", str(number).encode())])
                began = time.thread_time()
                server = Server()
                await server.serve(app, scope)
                took.append(time.thread_time() - began)
                assert server.sent[0]["status"] != 500

        run(play())
        assert min(took) < 0.005

    assert faulty_rows(LONG, look) == {}


@pytest.mark.parametrize("lines", [1000])
def test_many_header_lines_cost_little(lines: int) -> None:
    app = all_of_them(hello, but="RequestLimitsMiddleware")
    took: list[float] = []

    async def play() -> None:
        for number in range(4):
            fields = [
                (b"x-forwarded-for" if line % 2 else b"cookie", b"a=%d" % (line + number))
                for line in range(lines)
            ]
            began = time.thread_time()
            server = Server()
            await server.serve(app, http(headers=[HOST, *fields]))
            took.append(time.thread_time() - began)
            assert server.sent[0]["status"] != 500

    run(play())
    assert min(took) < 0.02


def test_the_path_of_a_broken_byte_is_judged_as_it_was_sent() -> None:
    """A rule for a path must not be evaded, or hit, by what the server made of a byte."""
    from mks_hardening.asgi import CSRFMiddleware

    app = CSRFMiddleware(hello, exempt_paths=["/hook"])
    posted = {"method": "POST", "headers": {"Origin": "https://evil.test"}}
    assert call(app, http("/hook", **posted)).sent[0]["status"] == 200
    for path, raw in [("/hook\ufffd", b"/hook%FF"), ("/ho\ufffdok", b"/ho%FFok")]:
        assert call(app, http(path, raw_path=raw, **posted)).sent[0]["status"] == 403
