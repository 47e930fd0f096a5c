"""The response cache around applications of FastAPI, Starlette, Litestar and Quart."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import starlette.middleware.gzip
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from litestar import Litestar, get, post
from quart import Quart
from starlette.middleware.gzip import GZipMiddleware

from mks_hardening.asgi import CacheRule, RequestLoggingMiddleware, ResponseCacheMiddleware
from mks_hardening.cache import MemoryCache
from mks_hardening.compose import harden_asgi
from mks_hardening.contrib.asgi_app import Hardening
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock, call_asgi

SETTINGS = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "testserver"})
HOST = {"Host": "testserver"}


def application() -> Any:
    app = FastAPI(openapi_url=None)
    numbers = itertools.count(1)
    state: dict[str, Any] = {"fails": False}
    app.state.switches = state

    @app.get("/page/{name}")
    async def page(name: str) -> str:
        if state["fails"]:
            raise ZeroDivisionError
        return f"{name} {next(numbers)}"

    @app.get("/blocking")
    def blocking() -> str:
        return f"thread {next(numbers)}"

    @app.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"stream "
            yield str(next(numbers)).encode()

        return StreamingResponse(pieces(), media_type="text/plain")

    @app.get("/old-stream")
    def old_stream() -> Response:
        def pieces() -> Iterator[bytes]:
            yield b"stream "
            yield str(next(numbers)).encode()

        return StreamingResponse(pieces(), media_type="text/plain")

    @app.get("/cookie")
    async def cookie() -> Response:
        found = JSONResponse(next(numbers))
        found.set_cookie("a", "1")
        return found

    @app.get("/session")
    async def session(request: Request) -> str:
        return f"{request.scope['mks_hardening.session'].user_id} {next(numbers)}"

    @app.post("/page/{name}")
    async def change(name: str) -> str:
        return name

    return app


def ask(app: Any, path: str, **request: Any) -> Any:
    return call_asgi(app, path, scheme="https", headers=HOST | request.pop("headers", {}), **request)


@pytest.mark.parametrize(("path", "is_stored"), [
    ("/page/a", True),
    ("/blocking", True),
    ("/stream", True),
    ("/old-stream", True),
    ("/cookie", False),
    ("/session", False),
    ("/missing", False),
])  # fmt: skip
@pytest.mark.parametrize("how", ["harden_asgi", "Hardening"])
def test_a_hardened_fastapi_application(how: str, path: str, is_stored: bool) -> None:
    app, rules = application(), [CacheRule("/*", ttl=60)]
    harden: Any = harden_asgi if how == "harden_asgi" else Hardening
    hardened = harden(app, SETTINGS, cache_rules=rules)
    stack = hardened if how == "harden_asgi" else app
    first, second = ask(stack, path), ask(stack, path)
    assert first.status == second.status == (404 if path == "/missing" else 200)
    assert (second.header("Age") == "0") is is_stored
    assert first.header("Age") is None
    if is_stored:
        assert first.body == second.body


def test_a_change_of_a_view_invalidates_its_page() -> None:
    app = harden_asgi(application(), SETTINGS, cache_rules=[CacheRule("/page/", ttl=60)])
    assert ask(app, "/page/a").body == ask(app, "/page/a").body == b'"a 1"'
    assert ask(app, "/page/a", method="POST", headers={"Origin": "https://testserver"}).status == 200
    assert ask(app, "/page/a").body == b'"a 2"'


def test_a_stale_page_while_views_fail_or_while_a_stream_is_made_anew() -> None:
    clock, app = FrozenClock(), application()
    rules = [
        CacheRule("/stream", ttl=60, stale_while_revalidate=60),
        CacheRule("/*", ttl=60, stale_if_error=60),
    ]
    cache = MemoryCache(clock=clock, jitter=0)
    stack = RequestLoggingMiddleware(ResponseCacheMiddleware(app, cache=cache, rules=rules, clock=clock))
    assert ask(stack, "/page/a").body == b'"a 1"'
    assert ask(stack, "/stream").body == b"stream 2"
    clock.advance(70)
    app.state.switches["fails"] = True
    failed = ask(stack, "/page/a")
    assert (failed.status, failed.body, failed.header("Age")) == (200, b'"a 1"', "70")
    assert ask(stack, "/stream").body == b"stream 2"
    assert ask(stack, "/stream").body == b"stream 3"
    app.state.switches["fails"] = False
    assert ask(stack, "/page/a").body == b'"a 4"'


# --- other frameworks, and compression around the cache


def litestar_application() -> Any:
    numbers = itertools.count(1)

    @get("/page/a")
    async def page() -> str:
        return f"a {next(numbers)} {FILLER}"

    @get("/private", response_headers={"Cache-Control": "private"})
    async def private() -> str:
        return f"private {next(numbers)}"

    @post("/page/a")
    async def change() -> str:
        return "a"

    return Litestar([page, private, change], openapi_config=None, logging_config=None)


def quart_application() -> Any:
    numbers = itertools.count(1)
    app = Quart(__name__)

    @app.get("/page/<name>")
    async def page(name: str) -> str:
        return f"{name} {next(numbers)} {FILLER}"

    @app.get("/private")
    async def private() -> Any:
        return f"private {next(numbers)}", 200, {"Cache-Control": "private"}

    @app.post("/page/<name>")
    async def change(name: str) -> str:
        return name

    return app


FILLER = "x" * 2000
FRAMEWORKS = pytest.mark.parametrize(
    "make", [litestar_application, quart_application], ids=["litestar", "quart"]
)


@FRAMEWORKS
@pytest.mark.parametrize("how", ["harden_asgi", "Hardening"])
def test_other_frameworks(make: Any, how: str) -> None:
    app, rules = make(), [CacheRule("/*", ttl=60)]
    if how == "harden_asgi":
        stack = harden_asgi(app, SETTINGS, cache_rules=rules)
    else:
        Hardening(app, SETTINGS, cache_rules=rules)
        stack = app
    first, second = ask(stack, "/page/a"), ask(stack, "/page/a")
    assert (first.status, second.status, second.header("Age")) == (200, 200, "0")
    assert first.body == second.body
    assert ask(stack, "/page/a", headers={"If-None-Match": str(second.header("ETag"))}).status == 304
    assert ask(stack, "/private").body != ask(stack, "/private").body
    changed = ask(stack, "/page/a", method="POST", headers={"Origin": "https://testserver"})
    assert changed.status < 300
    assert ask(stack, "/page/a").body != first.body


@pytest.mark.parametrize(
    "make", [application, litestar_application, quart_application], ids=["fastapi", "litestar", "quart"]
)
@pytest.mark.parametrize("place", ["outside", "inside"])
def test_compression_and_the_cache(make: Any, place: str) -> None:
    """Clients with and without gzip get their own representation, from one stored page or from two."""
    if place == "inside" and not hasattr(starlette.middleware.gzip, "IdentityResponder"):
        pytest.skip("this version of Starlette sends Vary with compressed responses only")
    inner, rules = make(), [CacheRule("/page/", ttl=60)]
    if place == "inside":
        inner = GZipMiddleware(inner, minimum_size=1)
    stack = harden_asgi(inner, SETTINGS, cache_rules=rules)
    if place == "outside":
        stack = GZipMiddleware(stack, minimum_size=1)
    for _ in range(2):
        packed = ask(stack, "/page/a", headers={"Accept-Encoding": "gzip"})
        plain = ask(stack, "/page/a", headers={"Accept-Encoding": "identity"})
        assert packed.header("Content-Encoding") == "gzip"
        assert plain.header("Content-Encoding") is None
        assert "accept-encoding" in str(packed.header("Vary")).lower()
        assert gzip.decompress(packed.body).startswith(b'"a' if make is application else b"a ")
        assert plain.body.startswith(b'"a' if make is application else b"a ")
        if place == "outside":
            assert gzip.decompress(packed.body) == plain.body
    assert plain.header("Age") == packed.header("Age") == "0"
