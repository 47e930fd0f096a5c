"""The same two pages in five frameworks: ``/where`` shows what the framework sees, ``/form`` accepts a POST."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django_project import configure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def heads(environ: dict[str, Any], *, url: str, secure: bool, client: str) -> str:
    """The page ``/where``."""
    return json.dumps(
        {
            "url": url,
            "secure": secure,
            "client": client,
            "nonce": environ.get("mks_hardening.csp_nonce", ""),
            "token": str(environ.get("mks_hardening.csrf_token", "")),
        }
    )


def flask_app() -> WSGIApplication:
    from flask import Flask, request

    app = Flask("hardened")

    @app.get("/where")
    def where() -> str:
        return heads(
            request.environ, url=request.url, secure=request.is_secure, client=str(request.remote_addr)
        )

    @app.post("/form")
    def form() -> str:
        return request.form["name"]

    return app


def django_app() -> WSGIApplication:
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.test.utils import override_settings
    from django.urls import path

    def where(request: HttpRequest) -> HttpResponse:
        url, client = request.build_absolute_uri(), request.META["REMOTE_ADDR"]
        return HttpResponse(heads(request.environ, url=url, secure=request.is_secure(), client=client))

    def form(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.POST["name"])

    class Urls:
        urlpatterns = (path("where", where), path("form", form))

    configure()
    common = ["django.middleware.common.CommonMiddleware"]
    ours = override_settings(ALLOWED_HOSTS=["www.example.com"], ROOT_URLCONF=Urls, MIDDLEWARE=common)
    with ours:
        handler: WSGIApplication = WSGIHandler()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with ours:
            return handler(environ, start_response)

    return app


def pyramid_app() -> WSGIApplication:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources and the like at import
        from pyramid.config import Configurator
        from pyramid.response import Response

        def where(request: Any) -> Response:
            secure, client = request.scheme == "https", request.client_addr
            return Response(heads(request.environ, url=request.url, secure=secure, client=client))

        with Configurator() as config:
            config.add_route("where", "/where")
            config.add_view(where, route_name="where")
            config.add_route("form", "/form")
            config.add_view(lambda request: Response(request.POST["name"]), route_name="form")
            app: WSGIApplication = config.make_wsgi_app()
            return app


def falcon_app() -> WSGIApplication:
    import falcon

    class Where:
        def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
            secure, client = request.scheme == "https", request.remote_addr
            response.text = heads(request.env, url=request.uri, secure=secure, client=client)

    class Form:
        def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
            response.text = request.get_media()["name"]

    app = falcon.App()
    app.add_route("/where", Where())
    app.add_route("/form", Form())
    return app


def bottle_app() -> WSGIApplication:
    from bottle import Bottle, request

    app = Bottle()

    @app.get("/where")
    def where() -> str:
        secure = request.urlparts.scheme == "https"
        return heads(request.environ, url=request.url, secure=secure, client=request.environ["REMOTE_ADDR"])

    @app.post("/form")
    def form() -> str:
        return str(request.forms["name"])

    return app  # type: ignore[no-any-return]


FRAMEWORKS: dict[str, Callable[[], WSGIApplication]] = {
    "flask": flask_app,
    "django": django_app,
    "pyramid": pyramid_app,
    "falcon": falcon_app,
    "bottle": bottle_app,
}
