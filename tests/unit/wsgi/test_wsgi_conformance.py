"""Every wrapper of the edge with every kind of application PEP 3333 allows, validated on both sides."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from mks_hardening._core.web.rate_headers import rate_limit_headers
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import (
    CSRFMiddleware,
    HeaderPolicy,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    RateLimitMiddleware,
    RateLimitRule,
    SecurityHeadersMiddleware,
    TrustedProxyMiddleware,
)
from tables import faulty_rows

WSGI_ONLY = {"test_the_body_itself_is_handed_on"}

TEXT = [("Content-Type", "text/plain")]


class Unlimited:
    """A limiter without limits."""

    allowed = True
    limits = remaining = reset_after = ()
    retry_after = None

    def __bool__(self) -> bool:
        return True

    def hit(self, group: str, key: str, *, cost: int = 1) -> Unlimited:
        assert rate_limit_headers(self) == []
        return self


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "proxy": lambda app: TrustedProxyMiddleware(app, trust=ProxyTrust(["127.0.0.1"])),
    "https": lambda app: HTTPSRedirectMiddleware(app, allowed_hosts=["localhost"]),
    "headers": lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.web()),
    "nonce": lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.strict()),
    "csrf": lambda app: CSRFMiddleware(app, allowed_origins=["https://localhost"]),
    "health": lambda app: HealthMiddleware(app, required={}),
    "limits": lambda app: RateLimitMiddleware(app, limiter=Unlimited(), rules=[RateLimitRule("all")]),
}


class Body:
    """A body that knows whether it was closed, and how often."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks

    def close(self) -> None:
        self.closed += 1


def returns_a_list(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", list(TEXT))
    return [b"a", b"", b"b"]


def generates(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", list(TEXT))
    yield b"a"
    yield b"b"


def starts_late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    def body() -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        yield b"ab"

    return body()


def writes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    write = start_response("200 OK", list(TEXT))
    write(b"a")
    write(b"b")
    return []


def changes_its_mind(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("500 Internal Server Error", list(TEXT))
    try:
        environ["missing"]
    except KeyError:
        start_response("200 OK", list(TEXT), sys.exc_info())
    return [b"ab"]


def wraps_a_file(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", list(TEXT))
    return FileWrapper(io.BytesIO(b"ab"))


APPLICATIONS = [returns_a_list, generates, starts_late, writes, changes_its_mind, wraps_a_file]


@pytest.fixture(params=WRAPPERS)
def wrap(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return WRAPPERS[request.param]


def test_every_kind_of_application(wrap: Callable[[Any], Any]) -> None:
    def look(row: tuple[Any, str]) -> None:
        app, method = row
        answer = call_wsgi(app, wrap=wrap, method=method, scheme="https")
        assert (answer.status, answer.body) == (200, b"ab")
        assert answer.header("Content-Type") == "text/plain"

    rows = list(product(APPLICATIONS, ["GET", "HEAD", "POST"]))
    assert faulty_rows(rows, look, name=lambda row: f"{row[0].__name__}, {row[1]}") == {}


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_body_stay_without_content_type(wrap: Callable[[Any], Any], status: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, [])
        return []

    answer = call_wsgi(app, wrap=wrap, scheme="https")
    assert answer.status == int(status[:3])
    assert answer.header("Content-Type") is None


def test_the_body_itself_is_handed_on(wrap: Callable[[Any], Any]) -> None:
    """So a server keeps ``len()``, its file wrapper and ``close()``."""
    body = Body([b"a"])

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        start_response("200 OK", list(TEXT))
        return body

    environ = {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "localhost",
        "SCRIPT_NAME": "",
    }
    assert wrap(app)(environ, lambda *head: None) is body
    assert body.closed == 0


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_exceptions_pass_through(wrap: Callable[[Any], Any], kind: type[BaseException]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise kind("from the application")

    with pytest.raises(kind, match="from the application"):
        call_wsgi(app, wrap=wrap, scheme="https")


def test_the_input_is_left_alone(wrap: Callable[[Any], Any]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", list(TEXT))
        return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]

    answer = call_wsgi(app, wrap=wrap, method="POST", body=b"posted", scheme="https")
    assert answer.body == b"posted"


def test_a_minimal_environ_is_enough(wrap: Callable[[Any], Any]) -> None:
    """Keys a server may leave out (PEP 3333) are not needed."""
    missing = dict.fromkeys(("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "HTTP_HOST"))
    answers: list[Any] = []
    app = wrap(returns_a_list)
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "443",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
    }
    assert not missing.keys() & environ.keys()
    assert b"".join(app(environ, lambda *head: answers.append(head))) == b"ab"
    assert answers[0][0] == "200 OK"


def test_header_lists_of_the_application_are_not_changed(wrap: Callable[[Any], Any]) -> None:
    shared = [("Content-Type", "text/plain"), ("Server", "mine")]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        str(environ.get("mks_hardening.csrf_token", ""))
        start_response("200 OK", shared)
        return []

    call_wsgi(app, wrap=wrap, scheme="https")
    assert shared == [("Content-Type", "text/plain"), ("Server", "mine")]
