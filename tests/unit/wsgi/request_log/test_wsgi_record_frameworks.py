from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_project import configure
from mks_hardening._core.process.context import current
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import RequestLoggingMiddleware


def flask() -> Any:
    from flask import Flask

    app = Flask(__name__)
    app.add_url_rule("/page", view_func=page, endpoint="page")
    app.add_url_rule("/fails", view_func=fails, endpoint="fails")
    return contextlib.nullcontext(app)


@contextlib.contextmanager
def django() -> Iterator[Any]:
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test.utils import override_settings
    from django.urls import path

    configure()

    class Urls:
        urlpatterns = (path("page", lambda _: HttpResponse(page())), path("fails", lambda _: fails()))

    with override_settings(ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], LOGGING_CONFIG=None):
        yield WSGIHandler()


def pyramid() -> Any:
    from pyramid.config import Configurator
    from pyramid.response import Response

    with Configurator() as config:
        config.add_route("page", "/page")
        config.add_route("fails", "/fails")
        config.add_view(lambda _: Response(page()), route_name="page")
        config.add_view(lambda _: fails(), route_name="fails")
        return contextlib.nullcontext(config.make_wsgi_app())


def falcon() -> Any:
    import falcon as package

    class Page:
        def on_get(self, request: Any, response: Any) -> None:
            response.text = page()

    class Fails:
        def on_get(self, request: Any, response: Any) -> None:
            fails()

    app = package.App()
    app.add_route("/page", Page())
    app.add_route("/fails", Fails())
    return contextlib.nullcontext(app)


def bottle() -> Any:
    from bottle import Bottle

    app = Bottle()
    app.route("/page", callback=page)
    app.route("/fails", callback=fails)
    return contextlib.nullcontext(app)


def page() -> str:
    return str(current()["request_id"])


def fails() -> str:
    raise ValueError("from the view")


FRAMEWORKS: list[Callable[[], Any]] = [flask, django, pyramid, falcon, bottle]


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.filterwarnings("ignore:.*pkg_resources.*", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_framework_is_recorded(framework: Callable[[], Any]) -> None:
    handler = Records()
    logger = logging.Logger("frameworks", level=1)  # noqa: LOG001 - of its own
    logger.addHandler(handler)
    with framework() as app:

        def wrap(inner: Any) -> Any:
            return RequestLoggingMiddleware(inner, logger=logger)

        answers = [
            call_wsgi(
                app, path, wrap=wrap, headers={"X-Request-ID": "the-id"}, environ={"wsgi.errors": _Sink()}
            )
            for path in ("/page", "/missing", "/fails")
        ]
    assert answers[0].body == b"the-id"
    assert [answer.header("X-Request-ID") for answer in answers] == ["the-id"] * 3
    assert [answer.status for answer in answers] == [200, 404, 500]
    assert [record.status for record in handler.records] == [200, 404, 500]
    assert [record.outcome for record in handler.records[:2]] == ["ok", "ok"]
    # Pyramid lets the exception through; the others answer it themselves.
    assert handler.records[2].outcome == ("error" if framework is pyramid else "ok")


class _Sink:
    def write(self, text: str) -> None:
        pass

    def writelines(self, lines: list[str]) -> None:
        pass

    def flush(self) -> None:
        pass
