from fastapi import Depends, FastAPI, Request

from mks_hardening.asgi import (
    BanList,
    BanRule,
    ClientRules,
    ClientRulesMiddleware,
    CORSPolicy,
    RateLimitRule,
    RequestLimitRule,
    RequestLimits,
)
from mks_hardening.contrib.fastapi_app import Hardening, limit
from mks_hardening.settings import HardeningSettings

settings = HardeningSettings.from_env(
    environ={"MKS_ALLOWED_HOSTS": "www.example.com", "MKS_TRUSTED_PROXIES": "10.0.0.0/8"}
)
# In production: HardeningSettings.from_env()
app = FastAPI()
app.add_middleware(
    ClientRulesMiddleware,
    rules=ClientRules(deny=["203.0.113.0/24"]),
    bans=BanList([BanRule("probing", strikes=3, within=60, ban=3600, when={404})]),
)
Hardening(
    app,
    settings,
    groups={"all": "5 per minute", "sign_in": "2 per minute"},
    rate_limits=[RateLimitRule("all")],
    cors_policy=CORSPolicy(["https://shop.example.com"], headers=["X-Basket"]),
    request_rules=[RequestLimitRule("/notes", RequestLimits(body=1000))],
)


@app.get("/search")
async def search(): ...


@app.post("/sign-in", dependencies=[Depends(limit("sign_in"))])
async def sign_in(): ...


@app.post("/notes")
async def notes(request: Request):
    return len(await request.body())
