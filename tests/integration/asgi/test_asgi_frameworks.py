"""The middleware around each framework by assignment, and by the frameworks' own ways of adding middleware."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request  # noqa: TC002 - FastAPI looks annotations up in the module

from mks_hardening.asgi import (
    CSRFMiddleware,
    HeaderPolicy,
    MemorySessionStore,
    RequestLoggingMiddleware,
    SecurityHeadersMiddleware,
    SessionTimeoutMiddleware,
)
from mks_hardening.testing import ASGIResponse, call_asgi

LOGGER = "frameworks.requests"
SESSION = "mks_hardening.session"
OPTIONS: list[tuple[Any, Callable[[], dict[str, Any]]]] = [
    (SecurityHeadersMiddleware, lambda: {"policy": HeaderPolicy.web()}),
    (RequestLoggingMiddleware, lambda: {"logger": logging.getLogger(LOGGER)}),
    (SessionTimeoutMiddleware, lambda: {"store": MemorySessionStore()}),
    (CSRFMiddleware, dict),
]


def fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/sign-in")
    async def sign_in(request: Request) -> str:
        await request.scope[SESSION].astart("alice")
        return "welcome"

    @app.get("/mine")
    def mine(request: Request) -> str:  # in a worker thread
        request.scope[SESSION].update_data(seen=True)
        return f"{request.scope[SESSION].user_id}"

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    return app


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def sign_in(request: Request) -> PlainTextResponse:
        await request.scope[SESSION].astart("alice")
        return PlainTextResponse("welcome")

    def mine(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.scope[SESSION].user_id}")

    async def broken(_request: Request) -> PlainTextResponse:
        raise RuntimeError("broken")

    return Starlette(routes=[Route("/sign-in", sign_in), Route("/mine", mine), Route("/broken", broken)])


def litestar(middleware: Any = ()) -> Any:
    from litestar import Litestar, MediaType, get
    from litestar import Request as LitestarRequest

    @get("/sign-in", media_type=MediaType.TEXT)
    async def sign_in(request: LitestarRequest[Any, Any, Any]) -> str:
        await request.scope[SESSION].astart("alice")  # type: ignore[typeddict-item]
        return "welcome"

    @get("/mine", media_type=MediaType.TEXT)
    async def mine(request: LitestarRequest[Any, Any, Any]) -> str:
        return f"{request.scope[SESSION].user_id}"  # type: ignore[typeddict-item]

    @get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    return Litestar(
        [sign_in, mine, broken],
        middleware=list(middleware),
        logging_config=None,
        signature_namespace={"LitestarRequest": LitestarRequest},
    )


def quart() -> Any:
    from quart import Quart, request

    app = Quart("frameworks")

    @app.get("/sign-in")
    async def sign_in() -> str:
        await request.scope[SESSION].astart("alice")
        return "welcome"

    @app.get("/mine")
    async def mine() -> str:
        return f"{request.scope[SESSION].user_id}"

    @app.get("/broken")
    async def broken() -> str:
        raise RuntimeError("broken")

    return app


def django() -> Any:
    import django_project

    django_project.configure()
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.test.utils import override_settings
    from django.urls import path

    async def sign_in(request: HttpRequest) -> HttpResponse:
        await request.scope[SESSION].astart("alice")  # type: ignore[attr-defined]
        return HttpResponse("welcome")

    def mine(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.scope[SESSION].user_id)  # type: ignore[attr-defined]

    def broken(_request: HttpRequest) -> HttpResponse:
        raise RuntimeError("broken")

    pages = [path("sign-in", sign_in), path("mine", mine), path("broken", broken)]
    urls = type("Urls", (), {"urlpatterns": pages})
    settings = {"ROOT_URLCONF": urls, "MIDDLEWARE": [], "ALLOWED_HOSTS": ["*"], "DEBUG": False}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def send_lower(message: Any) -> None:  # Django breaks the rule of names in lower case
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            await send({**message, "headers": headers} if headers else message)

        with override_settings(**settings):
            await ASGIHandler()(scope, receive, send_lower)

    return app


def assigned(make: Callable[[], Any]) -> Any:
    app = make()
    for kind, options in reversed(OPTIONS):
        app = kind(app, **options())
    return app


def added(make: Callable[[], Any]) -> Any:
    app = make()
    for kind, options in reversed(OPTIONS):
        app.add_middleware(kind, **options())
    return app


def defined() -> Any:
    from litestar.middleware import DefineMiddleware

    return litestar([DefineMiddleware(kind, **options()) for kind, options in OPTIONS])


STACKS: dict[str, Callable[[], Any]] = {
    "FastAPI": lambda: assigned(fastapi),
    "FastAPI add_middleware": lambda: added(fastapi),
    "Starlette": lambda: assigned(starlette),
    "Starlette add_middleware": lambda: added(starlette),
    "Litestar": lambda: assigned(litestar),
    "Litestar DefineMiddleware": defined,
    "Quart": lambda: assigned(quart),
    "Django": lambda: assigned(django),
}
RAISES = {"FastAPI", "FastAPI add_middleware", "Starlette", "Starlette add_middleware"}
"""Their outermost handler answers an exception with 500, and raises it for the server to log."""


def ask(app: Any, path: str, **headers: str) -> ASGIResponse:
    return call_asgi(app, path, scheme="https", headers={"Host": "www.example.com", **headers})


@pytest.mark.parametrize("name", STACKS)
def test_a_framework(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LOGGER)
    app = STACKS[name]()
    signed_in = ask(app, "/sign-in")
    assert (signed_in.status, signed_in.body.strip(b'"')) == (200, b"welcome")
    cookie = (signed_in.header("set-cookie") or "").partition(";")[0]
    mine = ask(app, "/mine", Cookie=cookie)
    assert (mine.status, mine.body.strip(b'"')) == (200, b"alice")
    assert ask(app, "/mine", Cookie="__Host-mks-session=" + "A" * 43).status == 401
    for path, status in (("/nowhere", 404), ("/broken", 500)):
        try:
            answer = ask(app, path)
        except RuntimeError:
            assert path == "/broken"
            assert name in RAISES
            continue
        assert answer.status == status
        if (name, status) == ("Litestar DefineMiddleware", 404):
            continue  # Litestar answers unknown paths outside of all middleware
        assert answer.header("x-request-id")
        assert answer.header("x-content-type-options") == "nosniff"
    records = [record for record in caplog.records if record.name == LOGGER]
    seen = {(record.__dict__["path"], record.__dict__["status"]) for record in records}
    expected = {("/sign-in", 200), ("/mine", 200), ("/mine", 401), ("/nowhere", 404), ("/broken", 500)}
    assert expected - seen <= ({("/nowhere", 404)} if "DefineMiddleware" in name else set())
