"""Hardened applications as run on a laptop: without TLS, with only MKS_ENV set."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

PAGE = '<form method="post" action="/form"><input name="name"></form>'


def hardened(app: WSGIApplication) -> WSGIApplication:
    return harden_wsgi(app, HardeningSettings.from_env())


def flask_app() -> WSGIApplication:
    from flask import Flask, request

    app = Flask("laptop")

    @app.get("/")
    def page() -> str:
        return PAGE

    @app.post("/form")
    def form() -> str:
        request.environ["mks_hardening.session"].start(request.form["name"])
        return "welcome"

    @app.get("/me")
    def me() -> str:
        return str(request.environ["mks_hardening.session"].user_id)

    return hardened(app)


def pyramid_app() -> WSGIApplication:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyramid.config import Configurator
        from pyramid.response import Response

        def form(request: Any) -> Any:
            request.environ["mks_hardening.session"].start(request.POST["name"])
            return Response("welcome")

        def me(request: Any) -> Any:
            return Response(str(request.environ["mks_hardening.session"].user_id))

        with Configurator() as config:
            for name, path, view in (("page", "/", None), ("form", "/form", form), ("me", "/me", me)):
                config.add_route(name, path)
                config.add_view(view or (lambda request: Response(PAGE)), route_name=name)
            return hardened(config.make_wsgi_app())


def django_admin() -> WSGIApplication:
    """``django-admin startproject`` and ``createsuperuser``, in one file."""
    import django
    from django.conf import settings
    from django.urls import path

    settings.configure(
        SECRET_KEY="only for tests",
        DEBUG=True,
        ALLOWED_HOSTS=[],
        ROOT_URLCONF="laptop_urls",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["LAPTOP_DB"]}},
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()
    import sys
    import types

    from django.contrib import admin
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    urls = types.ModuleType("laptop_urls")
    urls.urlpatterns = [path("admin/", admin.site.urls)]  # type: ignore[attr-defined]  # as Django wants it
    sys.modules["laptop_urls"] = urls
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_superuser("tanaka", "tanaka@example.com", "correct horse")
    return hardened(get_wsgi_application())
