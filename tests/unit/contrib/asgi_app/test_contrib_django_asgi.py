"""The adapter of Django under ASGI: what its middleware, session and limits find in a scope."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
import httpx
import pytest

from contrib_django_site import project
from mks_hardening.contrib.django_app import hardened, limit


@contextmanager
def site(*paths: Any, **settings: Any) -> Iterator[Any]:
    """The hardened ASGI application of a project with these routes."""
    with project(ROOT_URLCONF=type("Urls", (), {"urlpatterns": list(paths)}), **settings):
        from django.core.asgi import get_asgi_application

        yield hardened(get_asgi_application())


async def ask(app: Any, *paths: str) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return [await client.get(path) for path in paths]


@pytest.mark.skipif(django.VERSION < (5, 1), reason="sessions of Django have no asyncio methods before 5.1")
def test_the_session_of_django_is_ours() -> None:
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    def count(request: HttpRequest) -> JsonResponse:
        request.session["n"] = request.session.get("n", 0) + 1
        own: Any = request
        return JsonResponse({"n": request.session["n"], "id": own.request_id, "client": own.origin.client_ip})

    async def count_later(request: HttpRequest) -> JsonResponse:
        session: Any = request.session
        await session.aset("n", await session.aget("n", 0) + 1)
        return JsonResponse({"n": await session.aget("n")})

    with site(path("plain", count), path("async", count_later)) as app:
        answers = asyncio.run(ask(app, "/plain", "/async", "/plain"))
    assert [answer.json()["n"] for answer in answers] == [1, 2, 3]
    assert answers[0].json()["id"] == answers[0].headers["x-request-id"]
    assert answers[0].json()["client"] == "127.0.0.1"
    assert "mks-session=" in answers[0].headers["set-cookie"]


def test_plain_and_async_views_are_limited() -> None:
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    @limit("plain")
    def plain(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("plain")

    @limit("both")
    async def both(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("async")

    groups = {"plain": "1 per minute", "both": "1 per minute"}
    routes = (path("plain", plain), path("async", both))
    with site(*routes, MKS_HARDENING={"groups": groups}) as app:
        answers = asyncio.run(ask(app, "/plain", "/plain", "/async", "/async"))
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining"] == "0"
    assert answers[1].headers["content-type"] == "application/problem+json"


def test_pages_are_cached_and_personal_ones_are_not() -> None:
    from django.core.cache import caches
    from django.http import HttpRequest, HttpResponse
    from django.urls import path
    from django.views.decorators.cache import cache_page

    made: list[str] = []

    @cache_page(60)
    def plain(_request: HttpRequest) -> HttpResponse:
        made.append("plain")
        return HttpResponse(str(len(made)))

    @cache_page(60)
    def personal(request: HttpRequest) -> HttpResponse:
        made.append("personal")
        return HttpResponse(f"{request.session.get('x')} {len(made)}")

    backend = "mks_hardening.contrib.django_app.cache.HardenedCache"
    with site(
        path("plain", plain), path("personal", personal), CACHES={"default": {"BACKEND": backend}}
    ) as app:
        caches["default"].clear()
        answers = asyncio.run(ask(app, "/plain", "/plain", "/personal", "/personal"))
    assert [answer.text for answer in answers] == ["1", "1", "None 2", "None 3"]
