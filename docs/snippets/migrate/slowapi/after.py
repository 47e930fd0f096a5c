from typing import Annotated

from fastapi import Depends, FastAPI, Header

from mks_hardening.asgi import SESSION_KEY, GroupChoice, SessionHandle
from mks_hardening.contrib.fastapi_app import Hardening, current_session, current_user_id, limit
from mks_hardening.exceptions import RateLimitExceededError
from mks_hardening.settings import HardeningSettings

settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"})
# In production: HardeningSettings.from_env()
app = FastAPI()
hardening = Hardening(
    app,
    settings,
    groups={
        "sign_in": "3 per minute",
        "search": "3 per minute",
        "files": "4 per minute",
        "uploads": "10 per minute",
        "reports": "2 per minute",
        "reports_paid": "4 per minute",
        "contact": "3 per minute",
    },
)


def plan(connection):
    return "reports_paid" if connection.scope[SESSION_KEY].user_id == "tanaka" else "reports"


by_plan = GroupChoice(plan, groups=["reports_paid"], fallback="reports")


@app.post("/sign-in/{user}", dependencies=[Depends(limit("sign_in"))])
async def sign_in(user: str, session: Annotated[SessionHandle, Depends(current_session)]):
    await session.astart(user)  # after the password was checked


@app.get("/search", dependencies=[Depends(limit("search"))])
async def search(): ...


@app.get("/download", dependencies=[Depends(limit("files"))])
async def download(): ...


@app.get("/preview", dependencies=[Depends(limit("files"))])
async def preview(): ...


@app.post("/uploads")
async def upload(x_files: Annotated[int, Header()], user: Annotated[str, Depends(current_user_id)]):
    decision = await hardening.limiter.ahit("uploads", f"user:{user}", cost=x_files)
    if not decision.allowed:
        raise RateLimitExceededError("uploads", decision)


@app.get("/report", dependencies=[Depends(limit(by_plan))])
async def report(): ...


@app.get("/contact", dependencies=[Depends(limit("contact"))])
async def contact(): ...
