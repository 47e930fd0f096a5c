"""Statements are counted by the route of the request that sends them, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from contrib_django_site import project
from mks_hardening.asgi import ROUTE_KEY as SCOPE_ROUTE
from mks_hardening.asgi import RequestLoggingMiddleware as ASGILog
from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.db import SlowQueryMonitor, hardened_engine
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_asgi, call_wsgi
from mks_hardening.wsgi import RequestLoggingMiddleware

Work = Callable[[], str]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = hardened_engine("sqlite://")
    yield made
    made.dispose()


def through_flask(work: Work) -> None:
    app = Flask(__name__)
    Hardening(app, HardeningSettings.from_env(environ={"MKS_ENV": "development"}))
    app.add_url_rule("/item/<int:number>", "item", lambda number: work())
    assert call_wsgi(app, "/item/7", headers={"Host": "localhost"}).status == 200


def through_django(work: Work) -> None:
    with project() as site:
        assert site.visit(lambda request: work(), path="/item/7").status == 200


def through_fastapi(work: Work) -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    @app.get("/item/{number}")
    async def item(number: int) -> str:
        return work()

    assert call_asgi(ASGILog(app), "/item/7").status == 200


def through_plain_wsgi(work: Work) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["mks_hardening.route"] = "/item/:number"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [work().encode()]

    assert call_wsgi(RequestLoggingMiddleware(app), "/item/7").status == 200


def through_plain_asgi(work: Work) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[SCOPE_ROUTE] = "/item/:number"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": work().encode()})

    assert call_asgi(ASGILog(app), "/item/7").status == 200


@pytest.mark.parametrize(
    ("through", "route"),
    [
        (through_flask, "/item/<int:number>"),
        (through_django, "/item/<int:n>"),
        (through_fastapi, "/item/{number}"),
        (through_plain_wsgi, "/item/:number"),
        (through_plain_asgi, "/item/:number"),
    ],
)
def test_statements_are_counted_by_route(through: Callable[[Work], None], route: str, engine: Engine) -> None:
    with SlowQueryMonitor(engine) as monitor:

        def work() -> str:
            with engine.connect() as connection:
                return str(connection.execute(text("SELECT 1 AS found")).scalar())

        through(work)
        work()  # outside of a request
    (found,) = [one for one in monitor.stats() if "found" in one.statement]
    assert [caller.route for caller in sorted(found.callers, key=lambda each: each.route)] == ["", route]
