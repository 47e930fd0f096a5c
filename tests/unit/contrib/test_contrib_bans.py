"""``MKS_BANS`` in the adapters: one list for the application, which its ``close`` closes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from contrib_flask_site import settings_of
from mks_hardening._core import hooks
from mks_hardening.contrib.asgi_app import Hardening as ASGIHardening
from mks_hardening.contrib.flask_app import Hardening as FlaskHardening
from mks_hardening.testing import call_asgi
from mks_hardening.wsgi import BanList, BanRule

CLIENT = "203.0.113.9"


@pytest.fixture(autouse=True)
def observers() -> Iterator[int]:
    before = list(hooks.observers)
    yield len(before)
    hooks.observers[:] = before


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_flask(observers: int) -> None:
    app = Flask("bans")
    FlaskHardening(app, settings_of(MKS_BANS="1"))
    assert len(hooks.observers) == observers + 1
    client = app.test_client()
    statuses = [client.get("/nothing", environ_base={"REMOTE_ADDR": CLIENT}).status_code for _ in range(101)]
    assert (statuses[0], statuses[-1]) == (404, 403)
    app.extensions["mks_hardening"].close()
    assert len(hooks.observers) == observers


def test_asgi(observers: int) -> None:
    hardening = ASGIHardening(asgi_app, settings_of(MKS_BANS="1"))
    assert len(hooks.observers) == observers + 1
    scope = {"client": (CLIENT, 1)}
    host = {"Host": "localhost"}
    statuses = [call_asgi(hardening, headers=host, scope=scope).status for _ in range(101)]
    assert (statuses[0], statuses[-1]) == (404, 403)
    hardening.close()
    assert len(hooks.observers) == observers


def test_a_list_of_the_application_is_used_instead_and_stays_open() -> None:
    with BanList([BanRule("guessing", strikes=1, when={"SignInEvent.refused"})]) as bans:
        hardening = ASGIHardening(asgi_app, settings_of(MKS_BANS="1"), bans=bans)
        bans.ban(CLIENT, 60)
        assert (
            call_asgi(hardening, headers={"Host": "localhost"}, scope={"client": (CLIENT, 1)}).status == 403
        )
        hardening.close()
        assert bans.observe in hooks.observers
