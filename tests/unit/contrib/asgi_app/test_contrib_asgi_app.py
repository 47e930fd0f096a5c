"""One ``Hardening`` for the applications of every ASGI framework."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flask import Flask
from litestar import Litestar, Request, get
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from contrib_flask_site import settings_of
from mks_hardening.asgi import RateLimitRule
from mks_hardening.contrib.asgi_app import Hardening
from mks_hardening.exceptions import ConfigurationError


def of_starlette() -> Any:
    async def view(request: Any) -> PlainTextResponse:
        await request.scope["mks_hardening.session"].astart("7")
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", view)])


def of_litestar() -> Any:
    @get("/")
    async def view(request: Request[Any, Any, Any]) -> str:
        scope: Any = request.scope
        await scope["mks_hardening.session"].astart("7")
        return "hello"

    return Litestar([view], logging_config=None)  # it would configure the root logger


def of_quart() -> Any:
    app = Quart(__name__)

    @app.get("/")
    async def view() -> str:
        await quart_request.scope["mks_hardening.session"].astart("7")  # type: ignore[typeddict-item]  # our key
        return "hello"

    return app


def of_no_framework() -> Any:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await scope["mks_hardening.session"].astart("7")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "starlette": of_starlette,
    "litestar": of_litestar,
    "quart": of_quart,
    "none": of_no_framework,
}


async def ask(app: Any, path: str = "/", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_is_hardened_in_its_own_way(framework: str) -> None:
    app = FRAMEWORKS[framework]()
    with Hardening(app, settings_of()) as hardening:
        served = hardening if framework == "none" else app
        page = asyncio.run(ask(served))
        assert (page.status_code, page.text) == (200, "hello")
        assert "mks-session=" in page.headers["set-cookie"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "x-request-id" in page.headers
        assert asyncio.run(ask(served, host="evil.example.org")).status_code == 400
        assert asyncio.run(ask(served, "/livez")).status_code == 200
        # The object itself is an application too, whatever it was given.
        assert asyncio.run(ask(hardening)).status_code == 200
        assert len(hardening.sessions.sessions("7")) == 2


def test_the_record_of_litestar_has_the_route(caplog: pytest.LogCaptureFixture) -> None:
    @get("/items/{item:int}")
    async def view(request: Request[Any, Any, Any]) -> str:
        return str(request.path_params["item"])

    app = Litestar([view], logging_config=None)
    Hardening(app, settings_of())
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        assert asyncio.run(ask(app, "/items/5")).text == "5"
    [record] = [record for record in caplog.records if record.name == "mks_hardening.request"]
    assert vars(record)["route"] == "/items/{item}"


def test_a_request_to_itself_with_a_copy_of_the_scope_keeps_all_decisions() -> None:
    async def again(request: Any) -> PlainTextResponse:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await app({**request.scope, "path": "/inner", "raw_path": b"/inner"}, request.receive, send)
        return PlainTextResponse(sent[1]["body"], sent[0]["status"])

    async def inner(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.scope["REQUEST_ID"])

    app = Starlette(routes=[Route("/again", again), Route("/inner", inner)])
    rules = [RateLimitRule("few")]
    with Hardening(app, settings_of(), groups={"few": "2 per minute"}, rate_limits=rules):
        answers = [asyncio.run(ask(app, "/again")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].text == answers[0].headers["x-request-id"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_twice_is_refused(framework: str) -> None:
    app = FRAMEWORKS[framework]()
    served = Hardening(app, settings_of())
    with pytest.raises(ConfigurationError, match=r"hardened twice|already wrapped by \w+"):
        Hardening(served if framework == "none" else app, settings_of())


def test_wsgi_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigurationError, match=r"harden_wsgi") as caught:
        Hardening(Flask("here"), settings_of())
    assert caught.value.parameter == "app"


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"app": None}, "app"),
        ({"settings": {}}, "settings"),
        ({"limiter": 5}, "limiter"),
        ({"groups": "x"}, "groups"),
        ({"sign_in": 5}, "sign_in"),
        ({"store": 5}, "store"),
        ({"idle_timeot": 5}, "idle_timeot"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], parameter: str) -> None:
    arguments = {"app": of_no_framework(), "settings": settings_of(), **options}
    with pytest.raises(ConfigurationError) as caught:
        Hardening(arguments.pop("app"), arguments.pop("settings"), **arguments)
    assert caught.value.parameter == parameter
