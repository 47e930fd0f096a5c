from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from mks_hardening.asgi import SessionHandle
from mks_hardening.contrib.fastapi_app import Hardening, current_session, current_user_id, limit
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_asgi

app = FastAPI()
Hardening(
    app,
    HardeningSettings.from_env(environ={"MKS_ENV": "development"}),  # from_env() in production
    groups={"uploads": "2 per minute"},
)


@app.post("/sign-in")
async def sign_in(session: Annotated[SessionHandle, Depends(current_session)]) -> None:
    await session.astart("tanaka")  # after the password was checked: a new id, and a cookie


@app.get("/me")
async def me(user: Annotated[str, Depends(current_user_id)]) -> str:
    return user


@app.post("/uploads", dependencies=[Depends(limit("uploads"))])
async def upload() -> str:
    return "kept"


@app.websocket("/socket")
async def socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


if __name__ == "__main__":
    ours, others = {"Origin": "http://localhost"}, {"Origin": "https://other.example"}
    print("nobody is signed in:", call_asgi(app, "/me").status)
    statuses = [call_asgi(app, "/uploads", method="POST", headers=ours).status for _ in range(3)]
    print("three uploads:", *statuses)
    denied = call_asgi(app, "/socket", headers=others, websocket=[])
    print("a page of another site opens a WebSocket:", denied.status)
    print("our own page does:", call_asgi(app, "/socket", headers=ours, websocket=[]).status)
