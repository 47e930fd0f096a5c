"""A hardened Django project whose only view does what the test specifies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django_project import configure

configure()

from django.contrib import admin  # noqa: E402 - Django wants its settings first
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from mks_hardening.contrib.django_app import hardened  # noqa: E402
from mks_hardening.settings import HardeningSettings  # noqa: E402
from mks_hardening.testing import FrozenClock, call_wsgi  # noqa: E402
from mks_hardening.wsgi import MemorySessionStore, SessionManager  # noqa: E402

__all__ = ["MIDDLEWARE", "Site", "project"]

OURS = "mks_hardening.contrib.django_app.HardeningMiddleware"
MIDDLEWARE = [
    OURS,
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ENGINE = "mks_hardening.contrib.django_app.sessions"
Do = Callable[[HttpRequest], Any]


class Site:
    """The application, its clock and store, and a browser."""

    def __init__(self, store: Any, clock: FrozenClock) -> None:
        self.store = store
        self.clock = clock
        self.sessions = SessionManager(store)
        self.do: Do = lambda request: None
        self.cookies: dict[str, str] = {}
        self.app: Any = None

    def view(self, request: HttpRequest, **_: object) -> HttpResponse:
        """The view."""
        answer = self.do(request)
        return (
            answer if hasattr(answer, "status_code") else HttpResponse("" if answer is None else str(answer))
        )

    def visit(self, do: Do, *, cookies: dict[str, str] | None = None, path: str = "/", **how: Any) -> Any:
        """One request in which the view does something."""
        self.do = do
        return self.ask(path, cookies=cookies, **how)

    def ask(self, path: str, *, cookies: dict[str, str] | None = None, **how: Any) -> Any:
        """Send one request; the browser keeps its cookies unless others are given."""
        jar = self.cookies if cookies is None else cookies
        headers = {"Host": "localhost", **how.pop("headers", {})}
        if jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        answer = call_wsgi(self.app, path, headers=headers, environ={"REMOTE_ADDR": "127.0.0.1"}, **how)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.strip().partition("=")
                if "max-age=0" in value.lower():
                    jar.pop(key, None)
                else:
                    jar[key] = rest.partition(";")[0]
        return answer

    @property
    def cookie(self) -> str | None:
        """Return the browser's cookie of our session."""
        return self.cookies.get("mks-session")

    def client(self) -> Client:
        """Return Django's test client, which bypasses the wrappers."""
        return Client()


@contextmanager
def project(store: Any = None, **settings: Any) -> Iterator[Site]:
    """Return a site with these Django settings; ``MKS_HARDENING`` is added to the required ones."""
    clock = FrozenClock()
    kept = MemorySessionStore(clock=clock) if store is None else store
    site = Site(kept, clock)
    urls = type(
        "Urls",
        (),
        {
            "urlpatterns": [
                path("admin/", admin.site.urls),
                path("", site.view),
                path("item/<int:n>", site.view),
            ]
        },
    )
    own = {
        "settings": HardeningSettings.from_env(environ={"MKS_ENV": "development"}),
        "store": kept,
        "clock": clock,
        **settings.pop("MKS_HARDENING", {}),
    }
    usual: dict[str, Any] = {
        "ROOT_URLCONF": urls,
        "ALLOWED_HOSTS": ["localhost", "testserver"],
        "MIDDLEWARE": MIDDLEWARE,
        "SESSION_ENGINE": ENGINE,
        "MKS_HARDENING": own,
    }
    with override_settings(**{**usual, **settings}):
        site.app = hardened(WSGIHandler())
        yield site
