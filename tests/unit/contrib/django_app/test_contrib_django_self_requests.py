"""Requests that a Django application makes to itself inside a hardened one, as Wagtail does for a preview."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest

from contrib_django_site import project

from django.contrib.auth import get_user_model, login  # isort: skip
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import Client, RequestFactory
from django.test.utils import override_settings
from django.urls import path

from mks_hardening.contrib.django_app import hardened, limit
from mks_hardening.contrib.django_app._cached_pages import current_request
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi import HeaderPolicy

_FROM_ORIGINAL = ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_COOKIE", "HTTP_USER_AGENT", "wsgi.version")
PAGE = "{{ user.username }}|{{ request_id }}|{{ request.origin.client_ip }}|{{ csp_nonce }}"


@pytest.fixture(autouse=True, scope="module")
def database() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture
def user() -> Iterator[Any]:
    model = get_user_model()
    made = model.objects.create_superuser("alice", password="long enough for all")
    yield made
    model.objects.all().delete()


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


def dummy_request(original: HttpRequest, **changes: Any) -> WSGIRequest:
    """As ``wagtail.models.Page._get_dummy_headers``: a new environ with a few values of the original request."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": 80,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.input": StringIO(),
        "wsgi.errors": StringIO(),
        "wsgi.url_scheme": "http",
        **{name: original.META[name] for name in _FROM_ORIGINAL if name in original.META},
        **changes,
    }
    return WSGIRequest({name: value for name, value in environ.items() if value is not None})


def preview(original: HttpRequest, view: Callable[[HttpRequest], Any] = page, **changes: Any) -> Any:
    """As ``wagtail.models.Page.make_preview_request``: all middleware around a view without a URL."""

    class Handler(BaseHandler):
        def _get_response(self, request: HttpRequest) -> Any:
            return view(request) or HttpResponse()

    handler: Any = Handler()
    handler.load_middleware()
    return handler.get_response(dummy_request(original, **changes))


def test_a_preview_has_the_decisions_of_the_request_around_it(user: Any) -> None:
    with project(MKS_HARDENING={"headers": HeaderPolicy.strict()}) as site:
        site.visit(lambda request: login(request, user))
        answer = site.visit(preview, headers={"X-Forwarded-For": "203.0.113.9"})
    name, request_id, client, nonce = answer.body.decode().split("|")
    assert (answer.status, name, client) == (200, "alice", "127.0.0.1")
    assert request_id == answer.header("X-Request-ID")
    assert f"'nonce-{nonce}'" in (answer.header("Content-Security-Policy") or "")


def test_other_requests_to_itself_are_the_same(user: Any) -> None:
    """Django's own client and a request through all URLs, in production; also one inside another one."""
    handler: Any = BaseHandler()
    ways: dict[str, Callable[[HttpRequest], Any]] = {
        "client": lambda request: Client(
            SERVER_NAME="localhost", HTTP_COOKIE=request.META["HTTP_COOKIE"]
        ).get("/page"),
        "factory": lambda request: handler.get_response(
            RequestFactory(SERVER_NAME="localhost", HTTP_COOKIE=request.META["HTTP_COOKIE"]).get("/page")
        ),
        "copied environ": lambda request: handler.get_response(
            WSGIRequest({**request.META, "PATH_INFO": "/page"})
        ),
        "nested": lambda request: preview(request, preview),
    }
    with project() as site:
        urls = type("Urls", (), {"urlpatterns": [path("page", page), path("", site.view)]})
        site.visit(lambda request: login(request, user))
        with override_settings(ROOT_URLCONF=urls):
            site.app = hardened(WSGIHandler())
            handler.load_middleware()
            for way, make in ways.items():
                answer = site.visit(make)
                assert (answer.status, answer.body.split(b"|")[0]) == (200, b"alice"), way


def test_the_session_is_shared_and_saved_once() -> None:
    with project() as site:
        site.visit(lambda request: request.session.update({"n": 1}))

        def change(request: HttpRequest) -> str:
            preview(request, lambda inner: inner.session.update({"n": inner.session["n"] + 1}))
            request.session["m"] = request.session["n"]
            return str(current_request.get() is request)

        assert site.visit(change).body == b"True"
        found: dict[str, Any] = {}
        site.visit(lambda request: found.update(request.session.items()))
        assert found == {"n": 2, "m": 2}

        def fail(request: HttpRequest) -> None:
            preview(request, lambda inner: inner.session.update({"n": 9}))
            raise ZeroDivisionError

        assert site.visit(fail).status == 500
        site.visit(lambda request: found.update(request.session.items()))
        assert found["n"] == 2, "a failed request saves nothing"


def test_a_request_without_the_cookies_has_not_the_session_of_the_user(user: Any) -> None:
    names: list[str] = []

    def note(request: HttpRequest) -> None:
        names.append(getattr(request, "user").username)  # noqa: B009 - of the middleware

    with project() as site:
        site.visit(lambda request: login(request, user))
        alice = site.cookies["mks-session"]
        for cookies in ({"mks-session": alice}, {}):
            for header in (f"mks-session={alice}; x=1", "mks-session=unknown", None):
                site.visit(
                    lambda request, h=header: preview(request, note, HTTP_COOKIE=h), cookies=dict(cookies)
                )

        def sign_in_and_preview(request: HttpRequest) -> None:
            login(request, user)
            preview(request, note)

        site.visit(sign_in_and_preview, cookies={})
    assert names == ["alice", "", "", "alice", "", "", ""]


def test_limits_of_all_views_count_the_request_of_the_client_only() -> None:
    def twice(request: HttpRequest) -> HttpResponse:
        handler: Any = BaseHandler()
        handler.load_middleware()
        statuses = [
            handler.get_response(dummy_request(request, PATH_INFO="/few")).status_code for _ in range(2)
        ]
        return HttpResponse(str(statuses))

    @limit("few")
    def few(_request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    groups = {"all": "2 per minute", "few": "3 per minute"}
    urls = type("Urls", (), {"urlpatterns": [path("few", few), path("", twice)]})
    with project(ROOT_URLCONF=urls, MKS_HARDENING={"groups": groups, "view_limits": ["all"]}) as site:
        answers = [site.ask("/") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    # A view with a limit of its own is called, so it counts: a batch of sign-ins is no way around their limit.
    assert [answer.body for answer in answers[:2]] == [b"[200, 200]", b"[200, 429]"]


def test_a_cost_is_that_of_the_response_inside() -> None:
    @limit("failures", key=lambda request: "all", final_cost=lambda request, response: response.status == 401)
    def sign_in(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=int(request.GET["status"]))

    def batch(request: HttpRequest, status: int) -> HttpResponse:
        inner = preview(request, sign_in, QUERY_STRING=f"status={status}")
        return HttpResponse(str(inner.status_code))

    urls = type("Urls", (), {"urlpatterns": [path("<int:status>", batch)]})
    with project(ROOT_URLCONF=urls, MKS_HARDENING={"groups": {"failures": "2 per minute"}}) as site:
        asked = [200, 200, 200, 401, 401, 200]
        answers = [site.ask(f"/{status}").body for status in asked]
    assert answers == [b"200", b"200", b"200", b"401", b"401", b"429"]


def test_nothing_that_a_client_sends_makes_its_request_an_inner_one(user: Any) -> None:
    with project() as site, override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True):
        site.visit(lambda request: login(request, user))
        site.visit(preview)
        site.app = WSGIHandler()
        with pytest.raises(ConfigurationError, match="did not pass through the middleware"):
            site.visit(page, headers={"mks_hardening.session": "x", "mks_hardening.outer": "x"})


@pytest.mark.parametrize("is_async", [False, True])
def test_previews_work_under_asgi(is_async: bool) -> None:
    import httpx
    from django.core.asgi import get_asgi_application

    def show(request: Any) -> HttpResponse:
        return HttpResponse(f"{request.session.get('n')}|{request.request_id}|{request.origin.client_ip}")

    def plain(request: HttpRequest) -> Any:
        return preview(request, show)

    async def later(request: HttpRequest) -> Any:
        class Handler(BaseHandler):
            async def _get_response_async(self, request: HttpRequest) -> Any:
                return show(request)

        handler: Any = Handler()
        handler.load_middleware(is_async=True)
        first, second = await asyncio.gather(
            *(handler.get_response_async(dummy_request(request)) for _ in range(2))
        )
        assert first.content == second.content
        assert current_request.get() is request
        return first

    def begin(request: HttpRequest) -> HttpResponse:
        request.session["n"] = 7
        return HttpResponse()

    async def ask(app: Any) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            await client.get("/begin")
            return await client.get("/")

    routes = [path("begin", begin), path("", later if is_async else plain)]
    with project(ROOT_URLCONF=type("Urls", (), {"urlpatterns": routes})):
        answer = asyncio.run(ask(hardened(get_asgi_application())))
    assert (answer.status_code, answer.text) == (200, f"7|{answer.headers['x-request-id']}|127.0.0.1")
