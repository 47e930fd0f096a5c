"""Never run: what type checkers see of the adapters for Flask, Django, FastAPI and ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from flask import Blueprint, Flask

from mks_hardening import compose
from mks_hardening.contrib import asgi_app, django_app, fastapi_app, flask_app
from mks_hardening.contrib.flask_app import Hardening, Installed, exempt, limit
from mks_hardening.security import SignIn
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import SessionHandle, SessionManager

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from fastapi import FastAPI

    from mks_hardening.protocols import Limiter, SessionStore


@limit("auth_login", exempt=lambda: False)
def view(name: str, *, page: int = 1) -> dict[str, int]:
    """A limited view keeps its signature."""
    return {name: page}


@exempt
def free(name: str) -> str:
    """So does one that is kept out."""
    return name


@django_app.limit("search", methods=["GET"])
def page(request: object) -> str:
    """And one of Django."""
    return str(request)


assert_type(view("a", page=2), dict[str, int])
assert_type(free("a"), str)
assert_type(page(None), str)
view(1)  # type: ignore[arg-type]


def installed(app: Flask, settings: HardeningSettings) -> None:
    """What one line gives."""
    parts = Hardening(settings=settings).init_app(app, store=None, sign_in_url="/sign-in")
    assert_type(parts, Installed)
    assert_type(limit("api_read")(Blueprint("api", __name__)), Blueprint)
    store: SessionStore = parts.store
    limiter: Limiter = parts.limiter
    manager: SessionManager = parts.sessions
    handle: SessionHandle = flask_app.current_session()
    assert_type(flask_app.csp_nonce(), str)
    print(store, limiter, manager, handle)  # noqa: T201


def hardened(application: WSGIApplication) -> WSGIApplication:
    """What ``wsgi.py`` does."""
    return django_app.hardened(application)


async def on_asgi(app: FastAPI, settings: HardeningSettings, sign_in: SignIn, handle: SessionHandle) -> None:
    """What one line gives for ASGI, and what the dependencies return."""
    hardening = asgi_app.Hardening(app, settings, sign_in=lambda _: sign_in, groups={"a": "1 per minute"})
    assert_type(hardening.sessions, SessionManager)
    assert_type(hardening.sign_in, SignIn | None)
    assert_type(await fastapi_app.current_user_id(handle), str)
    await fastapi_app.limit("a", methods=["POST"], exempt=lambda connection: connection.client is None)()
    await fastapi_app.limit("a", final_cost=lambda connection, response: response.body_bytes)()
    await fastapi_app.exempt()
    assert_type(await fastapi_app.require_recent_factor(minutes=5)(), SessionHandle)
    compose.harden_asgi(hardening, settings)
