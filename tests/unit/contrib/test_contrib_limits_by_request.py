"""Limits of views that depend on the request and its response, with the same corpus in every framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from flask import Blueprint, Flask
from flask import Response as FlaskResponse
from flask import request as flask_request
from litestar import Litestar, asgi
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from contrib_django_site import project
from contrib_flask_site import settings_of
from mks_hardening import asgi as our_asgi
from mks_hardening.asgi import set_request_cost
from mks_hardening.contrib import asgi_app, django_app, fastapi_app, flask_app
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import GroupChoice

from django.core import mail  # isort: skip
from django.core.asgi import get_asgi_application  # isort: skip
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

Ask = Callable[..., int]
"""Takes the method and header fields, and returns the status of ``/``."""
GROUPS = {"few": "2 per minute", "free": "1 per minute", "team": "3 per minute", "rows": "10 per minute"}
ORIGIN = {"Origin": "http://localhost"}


def over_asgi(app: Any) -> Ask:
    def ask(method: str = "GET", path: str = "/", **headers: str) -> int:
        async def play() -> int:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return (await client.request(method, path, headers=fields(headers))).status_code

        return asyncio.run(play())

    return ask


def fields(headers: dict[str, str]) -> dict[str, str]:
    return {**ORIGIN, **{name.replace("_", "-"): value for name, value in headers.items()}}


class Answer:
    """What each view does: its status, rows or stream are in header fields of the request."""

    def __init__(self, header: Callable[[str], str | None]) -> None:
        self.status = int(header("x-status") or 200)
        self.rows = int(header("x-rows") or 0)
        self.body = [b"x"] * int(header("x-chunks") or 1)


@contextmanager
def flask_site(limiter: RateLimiter, rule: Callable[[Any], dict[str, Any]]) -> Iterator[Ask]:
    app = Flask(__name__)
    flask_app.Hardening(app, settings_of(), limiter=limiter)
    options = rule(lambda: flask_request.headers)

    @app.route("/", methods=["GET", "POST"])
    @flask_app.limit(**options)
    def view() -> FlaskResponse:
        answer = Answer(flask_request.headers.get)
        set_request_cost(flask_request.environ, answer.rows)
        return FlaskResponse(iter(answer.body), answer.status)

    client = app.test_client()
    yield (
        lambda method="GET", path="/", **headers: (
            client.open(path, method=method, headers=fields(headers), buffered=True).status_code
        )
    )


async def as_stream(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@contextmanager
def django_site(
    limiter: RateLimiter, rule: Callable[[Any], dict[str, Any]], *, over: str, is_async: bool = False
) -> Iterator[Ask]:
    options = rule(lambda request, *_: request.headers)

    def respond(request: Any) -> Any:
        answer = Answer(request.headers.get)
        set_request_cost(getattr(request, "scope", None) or request.META, answer.rows)
        if len(answer.body) > 1 and over != "test client":  # which does not count streams
            stream: Any = as_stream(answer.body) if over == "asgi" else iter(answer.body)
            return StreamingHttpResponse(stream, status=answer.status)
        return HttpResponse(b"".join(answer.body), status=answer.status)

    async def async_view(request: Any) -> Any:
        return respond(request)

    view = django_app.limit(**options)(async_view if is_async else respond)
    urls = type("Urls", (), {"urlpatterns": [path("", view)]})
    with project(ROOT_URLCONF=urls, MKS_HARDENING={"limiter": limiter}) as site:
        if over == "asgi":
            yield over_asgi(django_app.hardened(get_asgi_application()))
        elif over == "wsgi":
            yield (
                lambda method="GET", path="/", **headers: (
                    call_wsgi(
                        site.app, path, method=method, headers={"Host": "localhost", **fields(headers)}
                    ).status
                )
            )
        else:
            client = Client(raise_request_exception=False)
            vars(mail)["outbox"] = []  # as in Django's test environment
            try:
                yield (
                    lambda method="GET", path="/", **headers: (
                        client.generic(method, path, headers=fields(headers)).status_code
                    )
                )
            finally:
                vars(mail).pop("outbox", None)


@contextmanager
def fastapi_site(limiter: RateLimiter, rule: Callable[[Any], dict[str, Any]]) -> Iterator[Ask]:
    app = FastAPI()
    asgi_app.Hardening(app, settings_of(), limiter=limiter)
    options = rule(lambda request, *_: request.headers)

    @app.api_route("/", methods=["GET", "HEAD", "POST"], dependencies=[Depends(fastapi_app.limit(**options))])
    async def view(request: Request) -> Response:
        answer = Answer(request.headers.get)
        set_request_cost(request.scope, answer.rows)  # type: ignore[arg-type]  # a dict
        return StreamingResponse(iter(answer.body), answer.status)

    yield over_asgi(app)


def of_route(options: dict[str, Any]) -> Any:
    """The rule of a route in frameworks that have middleware for routes."""
    group = options.pop("group")
    return our_asgi.RateLimitRule(group, **options)


def from_scope(scope: Any, *_: object) -> Any:
    return StarletteRequest(scope).headers


@contextmanager
def starlette_site(limiter: RateLimiter, rule: Callable[[Any], dict[str, Any]]) -> Iterator[Ask]:
    async def view(request: Any) -> StarletteResponse:
        answer = Answer(request.headers.get)
        set_request_cost(request.scope, answer.rows)
        return StarletteResponse(b"".join(answer.body), answer.status)

    limits = Middleware(our_asgi.RateLimitMiddleware, limiter=limiter, rules=[of_route(rule(from_scope))])
    app = Starlette(routes=[Route("/", view, methods=["GET", "POST"], middleware=[limits])])
    asgi_app.Hardening(app, settings_of())
    yield over_asgi(app)


@contextmanager
def litestar_site(limiter: RateLimiter, rule: Callable[[Any], dict[str, Any]]) -> Iterator[Ask]:
    wrapper: Any = our_asgi.RateLimitMiddleware  # Litestar's own types of ASGI differ
    limits = DefineMiddleware(wrapper, limiter=limiter, rules=[of_route(rule(from_scope))])

    @asgi("/", middleware=[limits], copy_scope=True)
    async def view(scope: Any, receive: Any, send: Any) -> None:
        answer = Answer(StarletteRequest(scope).headers.get)
        set_request_cost(scope, answer.rows)
        await StarletteResponse(b"".join(answer.body), answer.status)(scope, receive, send)

    app = Litestar([view], logging_config=None)
    asgi_app.Hardening(app, settings_of())
    yield over_asgi(app)


SITES: dict[str, Any] = {
    "flask": flask_site,
    "django-wsgi": lambda *given: django_site(*given, over="wsgi"),
    "django-asgi": lambda *given: django_site(*given, over="asgi"),
    "django-async": lambda *given: django_site(*given, over="asgi", is_async=True),
    "django-test-client": lambda *given: django_site(*given, over="test client"),
    "fastapi": fastapi_site,
    "starlette": starlette_site,
    "litestar": litestar_site,
}


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[Ask, RateLimiter]]]:
    """Makes a site whose view has a limit; its options are made from what finds the fields of a request."""
    with ExitStack() as stack:

        def make(rule: Callable[[Any], dict[str, Any]]) -> tuple[Ask, RateLimiter]:
            limiter = RateLimiter(GROUPS, clock=FrozenClock())
            return stack.enter_context(SITES[request.param](limiter, rule)), limiter

        yield make


def last(arguments: tuple[Any, ...]) -> Any:
    """The response, which is the last argument of ``final_cost`` in every framework."""
    return arguments[-1]


def test_a_function_of_the_request_chooses_the_group(site: Any) -> None:
    def rule(headers: Any) -> dict[str, Any]:
        def choose(*request: Any) -> str:
            plan = headers(*request).get("x-plan")
            if plan == "raise":
                raise LookupError
            return plan  # type: ignore[no-any-return]  # None without the field

        return {"group": GroupChoice(choose, groups=["free", "team"], fallback="few")}

    ask, _ = site(rule)
    for plan, quota in (("free", 1), ("team", 3)):
        assert [ask(x_plan=plan) for _ in range(4)] == [200] * quota + [429] * (4 - quota)
    assert [ask(x_plan="gold"), ask(x_plan="raise"), ask()] == [200, 200, 429]


def test_only_failures_count(site: Any) -> None:
    ask, _ = site(
        lambda headers: {"group": "few", "final_cost": lambda *arguments: last(arguments).status == 401}
    )
    statuses = [ask(x_status=status) for status in ("200", "303", "200", "401", "200", "401", "200", "401")]
    assert statuses == [200, 303, 200, 401, 200, 401, 429, 429]


def test_rows_that_the_view_has_counted_are_the_cost(site: Any) -> None:
    ask, _ = site(
        lambda headers: {"group": "rows", "final_cost": lambda *arguments: last(arguments).handler_cost}
    )
    assert [ask(x_rows="0"), ask(x_rows="4"), ask(x_rows="4")] == [200] * 3
    assert [ask(x_rows="9"), ask(x_rows="1")] == [200, 429]  # 8 of 10, then what is left


def test_bytes_of_a_stream_are_the_cost(site: Any) -> None:
    ask, _ = site(
        lambda headers: {"group": "rows", "final_cost": lambda *arguments: last(arguments).body_bytes}
    )
    assert [ask(x_chunks="7"), ask(x_chunks="3"), ask()] == [200, 200, 429]


def test_an_error_in_the_cost_is_no_500_and_nothing_is_free(site: Any) -> None:
    def fails(*arguments: Any) -> int:
        raise RuntimeError

    ask, _ = site(lambda headers: {"group": "few", "final_cost": fails})
    assert [ask() for _ in range(3)] == [200, 200, 429]


def test_head_counts_as_get_and_a_preflight_does_not_count(site: Any) -> None:
    ask, _ = site(lambda headers: {"group": "few", "methods": ["GET"]})
    ask("HEAD")
    assert [ask(), ask()] == [200, 429]
    other, _ = site(lambda headers: {"group": "few"})
    for _ in range(3):
        assert other("OPTIONS", access_control_request_method="POST") != 429
    assert [other(), other(), other()] == [200, 200, 429]


def test_an_exemption_by_the_request_and_an_error_that_exempts_nobody(site: Any) -> None:
    def rule(headers: Any) -> dict[str, Any]:
        def is_monitoring(*request: Any) -> bool:
            token = headers(*request).get("x-token")
            if token == "raise":
                raise LookupError
            return bool(token == "secret")

        return {"group": "few", "exempt": is_monitoring}

    ask, _ = site(rule)
    assert [ask(x_token=token) for token in ("raise", "", "raise", "secret", "secret")] == [
        200, 200, 429, 200, 200,
    ]  # fmt: skip


# --- exemption by place


def test_a_blueprint_of_flask_is_exempt_from_what_is_around_it_only() -> None:
    limiter = RateLimiter({"app": "1 per minute", "api": "2 per minute", "own": "3 per minute"})
    app = Flask(__name__)
    flask_app.Hardening(app, settings_of(), limiter=limiter)
    flask_app.limit("app")(app)
    open_ = flask_app.exempt(Blueprint("open", __name__, url_prefix="/open"))
    api = flask_app.exempt(flask_app.limit("api")(Blueprint("api", __name__, url_prefix="/api")))
    inner = flask_app.exempt(Blueprint("inner", __name__, url_prefix="/inner"))
    for blueprint in (open_, api, inner):
        blueprint.add_url_rule("/", view_func=lambda: "", endpoint="page")
    inner.add_url_rule("/own", view_func=flask_app.limit("own")(lambda: ""), endpoint="own")
    api.register_blueprint(inner)
    app.register_blueprint(open_)
    app.register_blueprint(api)
    app.add_url_rule("/", view_func=lambda: "", endpoint="page")
    client = app.test_client()

    def statuses(path: str) -> list[int]:
        return [client.get(path).status_code for _ in range(4)]

    assert statuses("/") == [200, 429, 429, 429]
    assert statuses("/open/") == [200] * 4
    assert statuses("/api/") == [200, 200, 429, 429]
    assert statuses("/api/inner/") == [200] * 4
    assert statuses("/api/inner/own") == [200, 200, 200, 429]
    with pytest.raises(ConfigurationError, match="view or a blueprint"):
        flask_app.exempt(app)


def test_asynchronous_choices_are_refused_where_nothing_awaits_them() -> None:
    async def choose(*request: object) -> str:
        return "few"

    choice = GroupChoice(choose, groups=["few"], fallback="few")
    with pytest.raises(ConfigurationError, match="async def"):
        flask_app.limit(choice)
    with pytest.raises(ConfigurationError, match="async def"):
        django_app.limit(choice)(lambda request: None)
    with (
        pytest.raises(ConfigurationError, match="async def"),
        project(MKS_HARDENING={"view_limits": [choice]}),
    ):
        pass


@pytest.mark.parametrize("kind", ["fastapi", "django-async"])
def test_an_asynchronous_choice(kind: str) -> None:
    async def choose(request: Any) -> str:
        await asyncio.sleep(0)
        return str(request.headers["x-plan"])

    limiter = RateLimiter(GROUPS, clock=FrozenClock())
    choice = GroupChoice(choose, groups=["free", "team"], fallback="few")
    with SITES[kind](limiter, lambda headers: {"group": choice}) as ask:
        assert [ask(x_plan="free") for _ in range(2)] == [200, 429]
        assert [ask(x_plan="team") for _ in range(4)] == [200, 200, 200, 429]
        assert [ask(x_plan="gold") for _ in range(3)] == [200, 200, 429]


def test_the_groups_of_a_choice_must_exist() -> None:
    choice = GroupChoice(lambda: "few", groups=["few"], fallback="nope")
    app = Flask(__name__)
    flask_app.Hardening(app, settings_of(), groups={"few": "1 per minute"})
    with pytest.raises(ConfigurationError, match="nope"):
        app.add_url_rule("/x", view_func=flask_app.limit(choice)(lambda: ""), endpoint="x")


def test_limits_of_all_views_in_django() -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse("ok")

    @method_decorator(django_app.exempt, name="dispatch")
    class Exempt(View):
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse("ok")

    deeper = path("deeper/", include(([path("", view)], "deeper")))
    inner = path("inner/", include(([path("", view), deeper], "inner")))
    urls = [
        path("", view),
        path("view", django_app.exempt(lambda request: HttpResponse("ok"))),
        path("wrapped", csrf_exempt(Exempt.as_view())),
        path("own", django_app.exempt(django_app.limit("own")(lambda request: HttpResponse("ok")))),
        inner,
        path("monitoring/", include(([path("", view), deeper], "monitoring"))),
    ]
    limiter = RateLimiter({"all": "3 per minute", "own": "1 per minute"})
    options: dict[str, Any] = {
        "limiter": limiter,
        "view_limits": ["all"],
        "exempt_namespaces": ["monitoring", "inner:deeper"],
    }
    with project(ROOT_URLCONF=type("Urls", (), {"urlpatterns": urls}), MKS_HARDENING=options) as site:
        for exempt in ("/view", "/wrapped", "/monitoring/", "/monitoring/deeper/", "/inner/deeper/"):
            assert [site.ask(exempt).status for _ in range(4)] == [200] * 4
        assert [site.ask(counted).status for counted in ("/own", "/own")] == [200, 429]
        assert [site.ask(counted).status for counted in ("/", "/inner/", "/", "/inner/")] == [
            200, 200, 200, 429,
        ]  # fmt: skip
        assert site.ask("/nowhere").status == 404
        refusal = site.ask("/")
        assert (refusal.header("Content-Type"), refusal.header("Retry-After")) == (
            "application/problem+json", "60",
        )  # fmt: skip
        over = over_asgi(django_app.hardened(get_asgi_application()))
        assert [over(path="/"), over(path="/view")] == [429, 200]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"view_limits": ["nope"]}, "E007: view_limits: .*nope"),
        ({"view_limits": "few"}, "view_limits must be a list"),
        ({"view_limits": 7}, "view_limits must be a list"),
        ({"view_limits": [7]}, "group must be"),
        ({"exempt_namespaces": "monitoring"}, "exempt_namespaces"),
    ],
)
def test_impossible_limits_of_all_views_are_refused_at_start(options: dict[str, Any], words: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=words),
        project(MKS_HARDENING={"groups": {"few": "1 per minute"}, **options}),
    ):
        django_app.hardened(WSGIHandler())


def test_exempt_routers_and_endpoints_of_fastapi() -> None:
    limiter = RateLimiter({"app": "1 per minute", "router": "2 per minute", "own": "3 per minute"})
    app = FastAPI(dependencies=[Depends(fastapi_app.limit("app"))])
    asgi_app.Hardening(app, settings_of(), limiter=limiter)
    exempt = Depends(fastapi_app.exempt)
    open_ = APIRouter(prefix="/open", dependencies=[exempt])
    limited = APIRouter(prefix="/limited", dependencies=[exempt, Depends(fastapi_app.limit("router"))])

    @app.get("/")
    async def page() -> None: ...

    @app.get("/exempt", dependencies=[exempt])
    async def endpoint() -> None: ...

    @open_.get("/x")
    async def inside(_query: Annotated[str, Query()] = "") -> None: ...

    @limited.get("/x")
    async def counted() -> None: ...

    @limited.get("/exempt", dependencies=[exempt])
    async def in_router() -> None: ...

    @open_.get("/own", dependencies=[Depends(fastapi_app.limit("own"))])
    async def own() -> None: ...

    app.include_router(open_)
    app.include_router(limited)
    later = APIRouter(prefix="/later")
    later.add_api_route("/x", page)
    app.include_router(later, dependencies=[exempt])
    ask = over_asgi(app)

    def statuses(path: str) -> list[int]:
        return [ask(path=path) for _ in range(4)]

    assert statuses("/") == [200, 429, 429, 429]
    assert statuses("/exempt") == statuses("/open/x") == statuses("/later/x") == [200] * 4
    assert statuses("/limited/x") == [200, 200, 429, 429]
    assert statuses("/limited/exempt") == [200] * 4
    assert statuses("/open/own") == [200, 200, 200, 429]
    document = app.openapi()
    assert "429" in document["paths"]["/"]["get"]["responses"]


def test_a_stream_that_fails_costs_its_bytes_so_far() -> None:
    limiter = RateLimiter({"bytes": "10 per minute"}, clock=FrozenClock())
    app = FastAPI()
    asgi_app.Hardening(app, settings_of(), limiter=limiter)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"1234"
        raise RuntimeError("broken")

    by_bytes = fastapi_app.limit("bytes", final_cost=lambda request, response: response.body_bytes)

    @app.get("/", dependencies=[Depends(by_bytes)])
    async def view() -> StreamingResponse:
        return StreamingResponse(chunks())

    over_asgi(app)()
    assert limiter.test("bytes", "client:127.0.0.1").remaining == (6,)
