"""``Hardening`` and the dependencies of FastAPI, through FastAPI's own test client."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from contrib_flask_site import settings_of
from mks_hardening import asgi
from mks_hardening.asgi import MemorySessionStore, SessionHandle
from mks_hardening.contrib.fastapi_app import (
    Hardening,
    csp_nonce,
    csrf_token,
    current_session,
    current_user_id,
    limit,
    require_recent_factor,
)
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    MemorySignInStore,
    RateLimiter,
    SignIn,
    SignInAccount,
    SignInClient,
    hash_password,
)
from mks_hardening.testing import FrozenClock

TANAKA = SignInAccount(
    user_id="7", name="tanaka", email="tanaka@example.com", password_hash=hash_password("坂の上の 足場")
)
Session = Annotated[SessionHandle, Depends(current_session)]
User = Annotated[str, Depends(current_user_id)]


class Accounts:
    def find(self, name: str, /) -> SignInAccount | None:
        return TANAKA if name == TANAKA.name else None

    def get(self, user_id: str, /) -> SignInAccount | None:
        return TANAKA if user_id == TANAKA.user_id else None

    def set_password(self, _user_id: str, _stored: str, /, *, expected: str | None) -> bool:
        raise NotImplementedError(expected)


def made_sign_in(hardening: Hardening, clock: FrozenClock) -> SignIn:
    return SignIn(
        Accounts(),
        store=MemorySignInStore(clock=clock),
        limiter=RateLimiter(SIGN_IN_LIMITS, clock=clock),
        factors=None,
        end_sessions=hardening.sessions.end_user,
        clock=clock,
    )


class Site:
    """A hardened application with a route for each dependency."""

    def __init__(self, app: FastAPI | None = None, **options: Any) -> None:
        self.clock = FrozenClock()
        self.app = FastAPI() if app is None else app
        options.setdefault("store", MemorySessionStore(clock=self.clock))
        self.hardening = Hardening(
            self.app,
            settings_of(),
            clock=self.clock,
            groups={"uploads": "2 per minute", "sockets": "1 per minute", "router": "3 per minute"},
            sign_in=lambda hardening: made_sign_in(hardening, self.clock),
            **options,
        )
        add_routes(self.app)
        self.browser = TestClient(self.app, base_url="http://localhost", raise_server_exceptions=False)


def add_routes(app: FastAPI) -> None:
    router = APIRouter(prefix="/router", dependencies=[Depends(limit("router"))])

    @app.post("/sign-in")
    async def sign_in(request: Request, session: Session) -> dict[str, str]:
        found = request.scope["mks_hardening.hardening"].sign_in
        client = SignInClient(address="192.0.2.1")
        step = await found.apassword("tanaka", "坂の上の 足場", client=client, session=session)
        return {"state": step.state}

    @app.get("/me")
    async def me(user: User) -> str:
        return user

    @app.get("/plain")
    def plain(user: User, session: Session) -> dict[str, Any]:
        session.update_data(seen=True)
        return {"user": user, "data": dict(session.data)["seen"]}

    @app.post("/uploads", dependencies=[Depends(limit("uploads"))])
    async def uploads() -> str:
        return "kept"

    @router.get("/x")
    async def inside() -> str:
        return "x"

    @app.delete("/account")
    async def delete(session: Annotated[SessionHandle, Depends(require_recent_factor(minutes=5))]) -> str:
        await session.aend()
        return "gone"

    @app.get("/form")
    async def form(
        token: Annotated[str, Depends(csrf_token)], nonce: Annotated[str, Depends(csp_nonce)]
    ) -> dict[str, str]:
        return {"token": token, "nonce": nonce}

    @app.get("/outage")
    async def outage() -> None:
        raise BackendUnavailableError("search", "it is away", retry_after=7)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    @app.get("/stream")
    async def stream(user: User) -> StreamingResponse:
        return StreamingResponse(iter([f"{user} ", "again"]), media_type="text/event-stream")

    @app.websocket("/socket", dependencies=[Depends(limit("sockets"))])
    async def socket(websocket: WebSocket, user: User) -> None:
        await websocket.accept()
        await websocket.send_text(user)
        await websocket.close()

    app.include_router(router)


def request_records(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "mks_hardening.request"]


SOCKET = "ws://localhost/socket"  # the client ignores its base_url here
ORIGIN = {"Origin": "http://localhost"}


@pytest.fixture
def site() -> Site:
    return Site()


def signed_in(site: Site) -> TestClient:
    assert site.browser.post("/sign-in", headers=ORIGIN).json() == {"state": "done"}
    return site.browser


def test_a_route_for_users_answers_401_and_then_them(site: Site) -> None:
    refused = site.browser.get("/me")
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    browser = signed_in(site)
    assert browser.get("/me").json() == "7"
    assert browser.get("/plain").json() == {"user": "7", "data": True}
    assert browser.get("/stream").text == "7 again"
    site.hardening.sessions.end_user("7")
    assert browser.get("/me").status_code == 401


def test_a_limited_route_answers_429_with_the_fields_of_the_limit(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        answers = [site.browser.post("/uploads", headers=ORIGIN) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].headers["content-type"] == "application/problem+json"
    assert int(answers[2].headers["retry-after"]) > 0
    assert len(answers[2].headers.get_list("ratelimit")) == 1
    assert request_records(caplog)[2]["refused_by"] == "rate_limit"


def test_a_router_is_limited_as_a_whole_and_behind_base_http_middleware() -> None:
    app = FastAPI()

    async def passing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    browser = Site(app).browser
    answers = [browser.get("/router/x") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining"] == "2"


def test_the_application_words_its_429_itself() -> None:
    app = FastAPI()

    @app.exception_handler(429)
    async def slow_down(_request: Request, error: Any) -> PlainTextResponse:
        return PlainTextResponse("slow down", 429, error.headers)

    browser = Site(app).browser
    answers = [browser.post("/uploads", headers=ORIGIN) for _ in range(3)]
    assert answers[2].text == "slow down"
    assert "retry-after" in answers[2].headers


def test_a_sensitive_change_needs_a_recent_confirmation(site: Site) -> None:
    assert site.browser.delete("/account", headers=ORIGIN).status_code == 401
    browser = signed_in(site)
    site.clock.advance(301)
    refused = browser.delete("/account", headers=ORIGIN)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    signed_in(site)
    assert browser.delete("/account", headers=ORIGIN).json() == "gone"
    assert browser.get("/me").status_code == 401


def test_forms_have_a_token_and_scripts_a_nonce() -> None:
    site = Site(headers=asgi.HeaderPolicy.strict())
    page = site.browser.get("/form")
    nonce = page.json()["nonce"]
    assert nonce
    assert f"'nonce-{nonce}'" in page.headers["content-security-policy"]
    token = page.json()["token"]
    assert site.browser.post("/sign-in").status_code == 403
    assert site.browser.post("/sign-in", headers={"X-CSRF-Token": token}).status_code == 200


def test_outages_and_errors_are_answered(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        outage, broken = site.browser.get("/outage"), site.browser.get("/broken")
    assert (outage.status_code, outage.headers["retry-after"]) == (503, "7")
    assert outage.headers["content-type"] == "application/problem+json"
    assert broken.status_code == 500
    assert "x-request-id" in broken.headers
    assert broken.headers["x-content-type-options"] == "nosniff"
    assert request_records(caplog)[1]["outcome"] == "error"


def test_sockets_have_the_session_and_the_limits(site: Site) -> None:
    browser = signed_in(site)
    with browser.websocket_connect(SOCKET, headers=ORIGIN) as socket:
        assert socket.receive_text() == "7"
    with (
        pytest.raises(WebSocketDenialResponse) as limited,
        browser.websocket_connect(SOCKET, headers=ORIGIN),
    ):
        pass
    assert limited.value.status_code == 429
    site.clock.advance(61)
    site.hardening.sessions.end_user("7")
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(SOCKET, headers=ORIGIN):
        pass


def test_sockets_of_nobody_are_denied(site: Site) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        site.browser.websocket_connect(SOCKET, headers=ORIGIN),
    ):
        pass
    assert refused.value.status_code == 401


def test_the_openapi_document_has_the_responses_and_the_cookie(site: Site) -> None:
    document = site.browser.get("/openapi.json").json()
    paths = document["paths"]
    assert document["components"]["securitySchemes"] == {
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-mks-session",
            "description": "Session cookie; starts at sign-in and ends on the server.",
        }
    }
    assert {"200", "429"} == set(paths["/uploads"]["post"]["responses"])
    assert "Retry-After" in paths["/uploads"]["post"]["responses"]["429"]["headers"]
    assert "security" not in paths["/uploads"]["post"]
    assert "429" in paths["/router/x"]["get"]["responses"]
    assert "401" in paths["/me"]["get"]["responses"]
    assert paths["/me"]["get"]["security"] == [{"session": []}]
    assert {"401", "403"} <= set(paths["/account"]["delete"]["responses"])
    assert site.app.openapi() == document
    assert site.browser.get("/docs").status_code == 200


def test_a_mounted_application_uses_the_components_around_it() -> None:
    inner = FastAPI()
    add_routes(inner)
    app = Starlette(routes=[Mount("/api", app=inner)])
    hardening = Hardening(app, settings_of(), groups={"uploads": "1 per minute"})
    browser = TestClient(app, base_url="http://localhost")
    answers = [browser.post("/api/uploads", headers=ORIGIN).status_code for _ in range(2)]
    assert answers == [200, 429]
    assert browser.get("/api/me").status_code == 401
    hardening.close()


def test_the_record_has_the_route_also_below_a_mount_and_a_prefix(caplog: pytest.LogCaptureFixture) -> None:
    inner = FastAPI()
    router = APIRouter(prefix="/items")

    @router.get("/{item}")
    async def item(item: int) -> int:
        return item

    inner.include_router(router)
    app = FastAPI()
    app.mount("/api", inner)
    app.include_router(router)
    Hardening(app, settings_of())
    browser = TestClient(app, base_url="http://localhost")
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        for path in ("/items/5", "/api/items/6", "/none"):
            browser.get(path)
    records = request_records(caplog)
    assert [record.get("route") for record in records] == ["/items/{item}", "/api/items/{item}", None]
    assert [record["path"] for record in records] == ["/items/5", "/api/items/6", "/none"]


def test_hardening_twice_or_too_late_is_refused() -> None:
    app = FastAPI()
    Hardening(app, settings_of())
    with pytest.raises(ConfigurationError, match="hardened twice"):
        Hardening(app, settings_of())
    started = FastAPI()
    TestClient(started).get("/")
    with pytest.raises(ConfigurationError, match="before the first request"):
        Hardening(started, settings_of())
    doubled = FastAPI()
    doubled.add_middleware(asgi.RequestLoggingMiddleware)
    with pytest.raises(ConfigurationError, match="two log records per request"):
        Hardening(doubled, settings_of())


def test_hardening_inside_a_hardened_application_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    outer, inner = FastAPI(), FastAPI()
    add_routes(inner)
    outer.mount("/api", inner)
    for app in (outer, inner):
        Hardening(app, settings_of())
    answer = TestClient(outer, base_url="http://localhost").get("/api/form")
    assert answer.status_code == 500
    assert "mounted in one that is hardened" in caplog.text


def test_without_hardening_the_message_says_what_to_write() -> None:
    app = FastAPI()
    add_routes(app)
    with pytest.raises(ConfigurationError, match=r"Hardening\(app, settings\)"):
        TestClient(app).get("/me")


def test_step_up_without_a_sign_in_is_explained() -> None:
    app = FastAPI()
    Hardening(app, settings_of())

    @app.get("/sign-in")
    async def sign_in(session: Session) -> None:
        await session.astart("7")

    @app.get("/x", dependencies=[Depends(require_recent_factor(minutes=1))])
    async def view() -> None: ...

    browser = TestClient(app, base_url="http://localhost")
    browser.get("/sign-in")
    with pytest.raises(ConfigurationError, match="sign_in=") as caught:
        browser.get("/x")
    assert caught.value.parameter == "sign_in"


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_minutes_are_checked(minutes: float) -> None:
    with pytest.raises(ConfigurationError, match="minutes"):
        require_recent_factor(minutes=minutes)


def test_the_group_is_a_name() -> None:
    with pytest.raises(ConfigurationError, match="group"):
        limit("")
