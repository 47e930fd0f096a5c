"""FastAPI with sign-in, a second factor, a stream, a WebSocket, rate limits, health checks and alerts.

    pip install 'mks-hardening[fastapi,logging,notify,security,cache]' uvicorn websockets
    MKS_ENV=development DEMO_PASSWORD='correct horse battery' python app.py

Without MKS_REDIS_URL everything is in the memory of one process. The other variables of production are on the page
"Environment variables", for example MKS_ALLOWED_HOSTS, MKS_TRUSTED_PROXIES and MKS_SLACK_WEBHOOK_URL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import uvicorn
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    Response,
    WebSocket,
)
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from mks_hardening import compose
from mks_hardening.asgi import SessionHandle, SessionManager, request_origin
from mks_hardening.contrib.fastapi_app import (
    Hardening,
    current_session,
    current_user_id,
    limit,
    require_recent_factor,
)
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    MemorySignInStore,
    MemoryTwoFactorStore,
    RedisSignInStore,
    RedisTwoFactorStore,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    SignInStep,
    TwoFactorManager,
    hash_password,
)
from mks_hardening.settings import HardeningSettings

CHALLENGE = "challenge"  # cookie between the password and the second factor

User = Annotated[str, Depends(current_user_id)]
Session = Annotated[SessionHandle, Depends(current_session)]
Confirmed = Annotated[SessionHandle, Depends(require_recent_factor(minutes=5))]


class Accounts:
    """The accounts of the demonstration; yours are a table of your database."""

    def __init__(self, *accounts: SignInAccount) -> None:
        self.rows = {account.user_id: account for account in accounts}

    def find(self, name: str, /) -> SignInAccount | None:
        return next((account for account in self.rows.values() if account.name == name), None)

    def get(self, user_id: str, /) -> SignInAccount | None:
        return self.rows.get(user_id)

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        unchanged = self.rows[user_id].password_hash == expected
        if unchanged:
            self.rows[user_id] = replace(self.rows[user_id], password_hash=stored)
        return unchanged


settings = HardeningSettings.from_env()
logger = compose.setup_logging_with_notifications(settings)  # alerts for every ERROR: MKS_SLACK_WEBHOOK_URL
redis_url = settings.core.redis_url
factors = TwoFactorManager(
    MemoryTwoFactorStore() if redis_url is None else RedisTwoFactorStore(redis_url),
    issuer="Knowledge",
    secret_box=SecretBox(*(settings.security.secret_keys or [SecretBox.generate_key()])),
)
stored = hash_password(os.environ["DEMO_PASSWORD"])
accounts = Accounts(SignInAccount(user_id="7", name="tanaka", password_hash=stored))


store = compose.session_store(settings)
sign_in = SignIn(
    accounts,
    store=MemorySignInStore() if redis_url is None else RedisSignInStore(redis_url),
    limiter=compose.rate_limiter(settings, SIGN_IN_LIMITS),
    factors=factors,
    end_sessions=SessionManager(store).end_user,
)
app = FastAPI(title="Knowledge")
Hardening(
    app,
    settings,
    store=store,
    sign_in=sign_in,
    recheck_sockets=30,  # seconds: signing out also closes the sockets of the session
    groups={"api": "300 per minute", "uploads": "10 per hour", "sockets": "20 per minute"},
    optional={"sessions": store.ping},  # on /readyz; required= for what you cannot do without
)
api = APIRouter(dependencies=[Depends(limit("api"))])


class Password(BaseModel):
    name: str
    password: str


class Code(BaseModel):
    code: str


def client_of(request: Request) -> SignInClient:
    return SignInClient(address=request_origin(request.scope).client_ip)


def respond(step: SignInStep, response: Response) -> dict[str, str]:
    cookie: Any = {"key": CHALLENGE, "secure": True, "httponly": True, "samesite": "lax"}
    if step.state == "challenged":  # the password was correct, and nobody is signed in yet
        response.set_cookie(value=step.challenge or "", max_age=300, **cookie)
        return {"next": "second factor"}
    if not step:
        raise HTTPException(429 if step.state == "limited" else 401, "Not signed in.")
    response.delete_cookie(**cookie)
    return {"user": step.user_id or ""}


@api.post("/sign-in")
async def password(body: Password, request: Request, session: Session, response: Response) -> dict[str, str]:
    step = await sign_in.apassword(body.name, body.password, client=client_of(request), session=session)
    return respond(step, response)


@api.post("/second-factor")
async def second_factor(body: Code, request: Request, session: Session, response: Response) -> dict[str, str]:
    challenge = request.cookies.get(CHALLENGE)
    step = await sign_in.asecond_factor(challenge, body.code, client=client_of(request), session=session)
    return respond(step, response)


@api.post("/sign-out", status_code=204, response_model=None)
async def sign_out(session: Session) -> None:
    await session.aend()  # on the server too: a copy of the cookie is useless


@api.post("/factor")
async def enrol(user: User, _: Confirmed) -> dict[str, str]:
    enrolment = await factors.abegin_enrolment(user, account_name=accounts.rows[user].name)
    return {"uri": enrolment.provisioning_uri}  # shown as a QR code


@api.post("/factor/confirm")
async def confirm(body: Code, user: User, _: Confirmed) -> dict[str, list[str]]:
    return {"recovery codes": list(await factors.aconfirm_enrolment(user, body.code))}


@api.post("/uploads", dependencies=[Depends(limit("uploads"))])
async def upload(request: Request, _: User) -> dict[str, int]:
    size = 0
    async for chunk in request.stream():  # never as a whole in memory
        size += len(chunk)
    return {"bytes": size}


@api.get("/events")
async def events(user: User) -> StreamingResponse:
    async def stream() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number} for {user}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.websocket("/echo", dependencies=[Depends(limit("sockets"))])
async def echo(socket: WebSocket, user: User) -> None:
    await socket.accept()  # pages of other sites and strangers were refused before
    async for text in socket.iter_text():
        await socket.send_text(f"{user}: {text}")


app.include_router(api)

if __name__ == "__main__":
    # Logging is set up above, and the proxies are those of MKS_TRUSTED_PROXIES.
    uvicorn.run(app, port=8000, log_config=None, access_log=False, proxy_headers=False, server_header=False)
