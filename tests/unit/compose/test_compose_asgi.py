"""``harden_asgi`` is ``harden_wsgi`` for ASGI: the same order, settings and options."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi import FastAPI
from flask import Flask

from mks_hardening import asgi, compose
from mks_hardening._core.resilience.budget import current_budget
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication

HOST = "knowledge.example.com"
BASE = {"MKS_ALLOWED_HOSTS": HOST, "MKS_TRUSTED_PROXIES": "127.0.0.1"}


def settings(**extra: str) -> HardeningSettings:
    return HardeningSettings.from_env(environ={**BASE, **extra})


budgets: list[tuple[str, bool]] = []


def note_budget(moment: str) -> None:
    budgets.append((moment, current_budget() is not None))


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        assert current_budget() is None
        await send({"type": "lifespan.startup.complete"})
        return
    note_budget("request")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        note_budget("accepted")
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/error":
        raise RuntimeError("broken")
    if scope["path"] == "/login":
        await scope["mks_hardening.session"].astart("tanaka")
    facts = {
        "scheme": scope["scheme"],
        "client": scope["client"][0],
        "user": scope["mks_hardening.session"].user_id,
    }
    await send({"type": "http.response.start", "status": 200})
    note_budget("stream")
    await send({"type": "http.response.body", "body": json.dumps(facts).encode()})


def ask(
    app: ASGIApplication, path: str = "/", *, kind: str = "http", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Return status, header fields and body of one request, or the type of the last message of a WebSocket."""
    sent: list[Any] = []
    fields = {"host": HOST, "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9", **headers}
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "query_string": b"",
        "scheme": "http" if kind == "http" else "ws",
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "extensions": {"websocket.http.response": None},
    }
    if kind == "http":
        scope["method"] = "GET"

    async def receive() -> Any:
        return {"type": "http.request"} if kind == "http" else {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        await app(scope, receive, send)
        assert current_budget() is None

    asyncio.run(run())
    head = sent[0]
    names = {name.decode(): value.decode() for name, value in head.get("headers", ())}
    body = b"".join(message.get("body", b"") for message in sent)
    return head.get("status", 101), names, body


def test_the_whole_stack_serves_a_page(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        status, headers, body = ask(compose.harden_asgi(application, settings()))
    assert status == 200
    assert json.loads(body) == {"scheme": "https", "client": "203.0.113.9", "user": None}
    assert headers["strict-transport-security"].startswith("max-age=")
    [record] = [record for record in caplog.records if record.name == "mks_hardening.request"]
    assert headers["x-request-id"] == getattr(record, "request_id", "")


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/", {"host": "evil.example.org"}, 400),
        ("/", {"cookie": "__Host-mks-session=" + "a" * 43}, 401),
        ("/error", {}, 500),
    ],
)
def test_refusals_are_recorded_and_carry_id_and_headers(
    path: str, fields: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        got, headers, _ = ask(compose.harden_asgi(application, settings()), path, **fields)
    [record] = [record for record in caplog.records if record.name == "mks_hardening.request"]
    assert (got, vars(record)["status"]) == (status, status)
    assert "x-request-id" in headers
    assert headers["x-content-type-options"] == "nosniff"


def test_a_socket_of_another_site_is_denied_and_its_own_is_accepted() -> None:
    app = compose.harden_asgi(application, settings(), allowed_origins=["https://app.example.com"])
    assert ask(app, kind="websocket", origin="https://evil.example.org")[0] == 403
    for origin in (f"https://{HOST}", "https://app.example.com"):
        assert ask(app, kind="websocket", origin=origin)[0] == 101


def test_the_budget_ends_with_the_head_of_the_response() -> None:
    app = compose.harden_asgi(application, settings())
    budgets.clear()
    ask(app)
    ask(app, kind="websocket", origin=f"https://{HOST}")
    assert budgets == [("request", True), ("stream", False), ("request", True), ("accepted", False)]


def test_limits_count_by_the_real_client() -> None:
    limiter = compose.rate_limiter(settings(), {"all": "1 per minute"})
    rules = [asgi.RateLimitRule("all")]
    app = compose.harden_asgi(application, settings(), limiter=limiter, rate_limits=rules)
    assert [ask(app)[0], ask(app)[0]] == [200, 429]
    assert ask(app, **{"x-forwarded-for": "203.0.113.10"})[0] == 200


def test_probes_need_no_host_no_https_and_no_session() -> None:
    async def database() -> bool:
        return True

    app = compose.harden_asgi(application, settings(), required={"database": database})
    assert ask(app, "/readyz", host="10.0.0.7", **{"x-forwarded-proto": "http"})[0] == 200


def test_both_take_the_same_parameters() -> None:
    wsgi, both = (
        inspect.signature(function).parameters for function in (compose.harden_wsgi, compose.harden_asgi)
    )
    assert list(wsgi) == list(both)
    assert [p.default for p in wsgi.values()] == [p.default for p in both.values()]


def test_options_of_the_middleware_pass_through() -> None:
    app = compose.harden_asgi(application, settings(), request_id_header="X-Trace", record_skip_paths=["/x"])
    assert "x-trace" in ask(app)[1]
    with pytest.raises(ConfigurationError, match="did you mean request_id_header"):
        compose.harden_asgi(application, settings(), request_id_heder="X")


def test_wsgi_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigurationError, match=r"ASGI application.*harden_wsgi"):
        compose.harden_asgi(Flask("here"), settings())  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ConfigurationError, match=r"WSGI application.*harden_asgi"):
        compose.harden_wsgi(FastAPI(), settings())  # type: ignore[arg-type]  # what is tested


def test_what_is_there_already_is_refused() -> None:
    app, bare = FastAPI(), cast("Any", application)
    app.add_middleware(asgi.CSRFMiddleware)
    doubles: dict[str, Any] = {
        "two CSRF checks": app,
        "two sessions": asgi.SessionTimeoutMiddleware(bare, store=asgi.MemorySessionStore()),
    }
    for name, wrapped in doubles.items():
        with pytest.raises(ConfigurationError, match=f"{name}.*to harden_asgi without it"):
            compose.harden_asgi(wrapped, settings())
